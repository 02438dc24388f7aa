"""The base networks: a module for each (weights), and the description that is derived from it (data)."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import torch
from torch import nn

from common.errors import ArchitectureError
from common.models import mobilenet_v2
from common.models.derive import derive
from common.models.description import BaseNetwork, Description
from common.models.map_layout import map_layout, needs_contiguous_maps, use_contiguous_maps
from common.models.networks import allow_network, factory_of, skeleton_of
from common.models.reduce import reduced, unset_tensors
from common.models.trial import require_training, without_what_breaks

__all__ = ["allow_network", "build_module", "describe"]
_MAXIMUM = 4096  # no image side, class count or channel count that we would build for a stranger is larger


@lru_cache(maxsize=256)
def describe(base: BaseNetwork) -> Description:
    """The description of a base network; raises ArchitectureError if no such network can be built."""
    return _known(base)[1]


def build_module(base: BaseNetwork, sizes: Mapping[str, int]) -> nn.Module:
    """A fresh module with the given channels per group, initialised from torch's global generator.

    The full network is initialised by its author's code, layers of a reduced one by their own `reset_parameters`.
    """
    skeleton, description = _known(base)
    whole = {**description.full_sizes, **{block.name: 1 for block in description.blocks}}
    if all(sizes.get(name, size) == size for name, size in whole.items()):
        full = factory_of(base).build(base)
        return full if map_layout(skeleton) == torch.channels_last else use_contiguous_maps(full)
    module = reduced(skeleton, description, sizes)
    missing = unset_tensors(module)
    if missing:
        _copy_first_entries(factory_of(base).build(base), module, missing)
    return module


@dataclass(frozen=True)
class _Identified:
    """A base network that is equal to others that give the same network."""

    identity: Hashable
    base: BaseNetwork = field(compare=False)


def _known(base: BaseNetwork) -> tuple[nn.Module, Description]:
    """The full module on the meta device and its description."""
    _check(base)
    return _derived(_Identified((base.model, factory_of(base).identity(base)), base))


@lru_cache(maxsize=128)
def _derived(one: _Identified) -> tuple[nn.Module, Description]:
    base = one.base
    module = skeleton_of(base)
    if not factory_of(base).foreign:
        return module, derive(module, base.input_shape)
    try:
        description = derive(module, base.input_shape)
    except ArchitectureError:
        raise
    except Exception as error:  # whatever a stranger's forward raises
        raise ArchitectureError(
            f"{base.model} cannot take images of shape {base.input_shape}: {type(error).__name__}: {error}"
        ) from None
    if description.classes != base.classes:
        raise ArchitectureError(f"{base.model} returns {description.classes} logits, not {base.classes}")
    require_training(base.model, module, base.input_shape, base.classes)
    description = without_what_breaks(base.model, module, description, base.input_shape)
    if needs_contiguous_maps(module, base.input_shape):
        use_contiguous_maps(module)
    return module, description


def _copy_first_entries(full: nn.Module, module: nn.Module, names: list[str]) -> None:
    """Bare tensors start with the first of the values that the full network gives them."""
    theirs = _tensors(full)
    with torch.no_grad():
        for name, tensor in _tensors(module).items():
            if name in names:
                tensor.copy_(theirs[name][tuple(slice(size) for size in tensor.shape)])


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by its name, those too that no state dict holds."""
    return dict(chain(module.named_parameters(), module.named_buffers()))


def _check(base: BaseNetwork) -> None:
    factory_of(base)
    if len(base.input_shape) != 3:
        raise ArchitectureError(f"an input shape is (channels, height, width), not {base.input_shape}")
    if not all(1 <= value <= _MAXIMUM for value in (*base.input_shape, base.classes)) or not 0 < base.width <= 4:
        raise ArchitectureError(f"cannot build {base.model} for input {base.input_shape} and {base.classes} classes")
    if len(base.strides) != len(mobilenet_v2.STAGES) or not all(1 <= s <= 4 for s in base.strides):
        raise ArchitectureError(f"strides must be {len(mobilenet_v2.STAGES)} numbers from 1 to 4, not {base.strides}")
    if not 1 <= base.stem_stride <= 8:
        raise ArchitectureError(f"the stride of the stem must be a number from 1 to 8, not {base.stem_stride}")
