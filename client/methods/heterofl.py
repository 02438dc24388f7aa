"""HeteroFL's scaler (Diao et al. 2021, section 3): a slice's activations brought to the size of the whole network's.

Fewer channels in, smaller sums out: with a share r of the channels, outputs are divided by r while training, as dropout
does, and left alone in evaluation.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from common.errors import MessageError


@contextmanager
def scaled_convolutions(module: nn.Module, scale: float) -> Iterator[None]:
    """Divide the output of every convolution of `module` by `scale`; undone at the end. Does nothing for 1.

    Raises MessageError for a scale that is not above 0.
    """
    if scale <= 0:
        raise MessageError(f"activation-scale must be above 0, not {scale:g}")

    def divide(layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output / scale

    with ExitStack() as hooks:
        if scale != 1:
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d):
                    hooks.enter_context(layer.register_forward_hook(divide))
        yield
