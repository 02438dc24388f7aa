"""Fresh weights of an architecture."""

import torch
from torch import nn

from common.architecture import Architecture
from common.slicing import slice_state


def fresh(architecture: Architecture, seed: int, *, zero_init_residual: bool = True) -> nn.Module:
    """A module whose weights depend on `seed` alone.

    With `zero_init_residual` the batch norm at the end of every residual block that could vanish begins with scale 0,
    so that the block begins as the identity (Goyal et al. 2017, arXiv:1706.02677, section 5.1; they have it for ResNets
    of 50 layers and more). Without it the gradient grows on its way back through MobileNetV2: the first layers' weights
    are thrown about while the last ones hardly move. Where the author of a network has set this scale, or its norm has
    seen images, as in pretrained weights, it is left as it is. What the author froze, which no training changes,
    has the author's values in a reduced network too.
    """
    module = architecture.build(seed)
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    full = Architecture.full(architecture.base)
    if frozen and architecture != full:
        values = slice_state(full.build(seed).state_dict(), full, architecture)
        module.load_state_dict({name: values[name] for name in frozen}, strict=False)
    if zero_init_residual:
        for block in architecture.description.blocks:
            if block.name not in architecture.removed:
                last = module.get_submodule(block.scale)
                if isinstance(last, nn.modules.batchnorm._BatchNorm) and _is_untouched(last):
                    nn.init.zeros_(last.weight)
    return module


def _is_untouched(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    """Whether it is as torch makes it, to be trained: scale 1, and no mean or variance of images."""
    expected = ((norm.running_mean, 0), (norm.running_var, 1))
    fresh_statistics = all(value is None or bool((value == wanted).all()) for value, wanted in expected)
    trained = norm.affine and norm.weight.requires_grad
    return trained and bool(torch.all(norm.weight == 1)) and fresh_statistics
