"""Fresh weights of an architecture."""

from torch import nn

from common.architecture import Architecture


def fresh(architecture: Architecture, seed: int, *, zero_init_residual: bool = True) -> nn.Module:
    """A module whose weights depend on `seed` alone.

    With `zero_init_residual` the batch norm at the end of every residual block that could vanish begins with scale 0,
    so that the block begins as the identity (Goyal et al. 2017, arXiv:1706.02677, section 5.1; they have it for ResNets
    of 50 layers and more). Without it the gradient grows on its way back through MobileNetV2: the first layers' weights
    are thrown about while the last ones hardly move.
    """
    module = architecture.build(seed)
    if zero_init_residual:
        for block in architecture.description.blocks:
            if block.name not in architecture.removed:
                last = module.get_submodule(block.scale)
                if isinstance(last, nn.modules.batchnorm._BatchNorm) and last.affine:
                    nn.init.zeros_(last.weight)
    return module
