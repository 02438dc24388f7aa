"""A reduced network: the full module with every layer made anew in the size that is kept of it.

Layers are initialised one after the other by their own `reset_parameters`, in the order of the state dict, so that a
reduced network of a seed starts as it would have if it had been written down in that size.
"""

import copy
from collections.abc import Mapping

import torch
from torch import nn

from common.models.description import Description, Layer, length

# Attributes that say how large a layer is, by the side of the layer that they count.
_SIZES = {"in_channels": "source", "in_features": "source", "out_channels": "target", "out_features": "target"}
# What a norm has beside its parameters, and its `reset_parameters` sets too.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def reduced(skeleton: nn.Module, description: Description, sizes: Mapping[str, int]) -> nn.Module:
    """A module of `sizes` channels per group and without the blocks of size 0, initialised from torch's generator.

    `skeleton` is the full network on the meta device. What no layer initialises (a bare parameter, a buffer) is left
    as it is made, floats as NaN: `unset_tensors` names it.
    """
    device = torch.empty(0).device  # of the surrounding torch.device context
    module = copy.deepcopy(skeleton).train()
    for block in description.blocks:
        if sizes.get(block.name, 1) == 0:
            module.set_submodule(block.name, nn.Identity())
    for path, layer in list(module.named_modules()):
        own = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        if not own:
            continue
        for name, tensor in own:
            known = description.tensor_by_name.get(f"{path}.{name}" if path else name)
            shape = known.shape_at(sizes) if known is not None else tuple(tensor.shape)
            fresh = torch.empty(shape, dtype=tensor.dtype, device=device)
            if fresh.is_floating_point():
                fresh.fill_(torch.nan)
            if isinstance(tensor, nn.Parameter):
                setattr(layer, name, nn.Parameter(fresh, tensor.requires_grad))
            else:
                layer._buffers[name] = fresh
        if path in description.layer_by_name:
            _resize(layer, description.layer_by_name[path], sizes)
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()
    return module


def unset_tensors(module: nn.Module) -> list[str]:
    """The tensors of a reduced network that no layer initialised.

    These are parameters that no `reset_parameters` wrote to, as it does not know what an author added to a layer of
    torch's, and all buffers but the statistics of norms: what resets an author's layer may leave its buffers alone.
    """
    return [
        f"{path}.{name}" if path else name
        for path, layer in module.named_modules()
        for name, tensor in [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        if (_is_unset(tensor) if isinstance(tensor, nn.Parameter) else not _is_statistic(layer, name))
    ]


def _is_unset(parameter: torch.Tensor) -> bool:
    if parameter.is_meta:  # which has no values
        return False
    return not parameter.is_floating_point() or bool(parameter.isnan().any())


def _is_statistic(layer: nn.Module, name: str) -> bool:
    return isinstance(layer, nn.modules.batchnorm._NormBase) and name in _STATISTICS


def _resize(layer: nn.Module, known: Layer, sizes: Mapping[str, int]) -> None:
    """Tell a layer the size it has now."""
    for name, side in _SIZES.items():
        dimension = known.target if side == "target" else known.source
        if hasattr(layer, name) and dimension:
            setattr(layer, name, length(dimension, sizes))
    if known.kind == "batch_norm":
        if known.target:
            layer.num_features = length(known.target, sizes)  # type: ignore[assignment]
    elif known.fan_in and known.source:
        layer.groups = length(known.source, sizes) // known.fan_in  # type: ignore[assignment]
