"""Networks whose forward reads maps row by row, such as `x.view(len(x), -1)` after a convolution.

FedDAC keeps maps channels-last, with which torch trains faster; a `view` that takes channels together with pixels
fails on these. A network is tried on maps that are channels-last before it is used, and where only that stops it, it is
given, and its convolutions return, contiguous maps.
"""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_MARK = "_feddac_contiguous_maps"
_KEEP = ("convolution", "pool", "batch_norm", "upsample")
"""Parts of the names of operations that, on real tensors, return maps in the layout that they were given."""


def needs_contiguous_maps(module: nn.Module, input_shape: tuple[int, int, int]) -> bool:
    """Whether `module`, which runs on images of (C, H, W), does not where maps are channels-last; it is on meta."""
    image = _channels_last(torch.zeros(2, *input_shape, device="meta"))
    try:
        for training in (True, False):
            with torch.no_grad(), _ChannelsLast():  # type: ignore[no-untyped-call]
                module.train(training)(image)
    except Exception:  # whatever a stranger's forward raises
        return True
    finally:
        module.eval()
    return False


def use_contiguous_maps(module: nn.Module) -> nn.Module:
    """Have `module` read and make contiguous maps from now on, whichever it is given; copies of it do, too."""
    setattr(module, _MARK, True)
    module.register_forward_pre_hook(_contiguous_inputs)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(_contiguous_output)
    return module


def map_layout(module: nn.Module) -> torch.memory_format:
    """How the weights of convolutions and the maps of `module` lie in memory."""
    return torch.contiguous_format if getattr(module, _MARK, False) else torch.channels_last


def _contiguous_inputs(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.contiguous() if isinstance(one, torch.Tensor) else one for one in inputs)


def _contiguous_output(_: nn.Module, __: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    return output.contiguous()


class _ChannelsLast(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operations on the meta device return maps as those on a processor do whose weights are channels-last."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No, as of `common.models.trace`: to hide from torch's compiler would import it."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return tree_map(_channels_last, result) if any(part in func._schema.name for part in _KEEP) else result


def _channels_last(value: Any) -> Any:
    is_map = isinstance(value, torch.Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if is_map else value
