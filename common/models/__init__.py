"""The base networks: a module for each (weights), and the description that is derived from it (data)."""

from collections.abc import Hashable, Mapping
from functools import lru_cache

import torch
from torch import nn

from common.errors import ArchitectureError
from common.models import mobilenet_v2
from common.models.derive import derive
from common.models.description import BaseNetwork, Description
from common.models.networks import network_of
from common.models.reduce import reduced

_MAXIMUM = 4096  # no image side, class count or channel count that we would build for a stranger is larger


@lru_cache(maxsize=256)
def describe(base: BaseNetwork) -> Description:
    """The description of a base network; raises ArchitectureError if no such network can be built."""
    return _derived(base)[1]


def build_module(base: BaseNetwork, sizes: Mapping[str, int]) -> nn.Module:
    """A fresh module with the given channels per group, initialised from torch's global generator."""
    skeleton, description = _derived(base)
    if dict(sizes) == description.full_sizes:
        return network_of(base).build(base)
    return reduced(skeleton, description, sizes)


_cache: dict[Hashable, tuple[nn.Module, Description]] = {}


def _derived(base: BaseNetwork) -> tuple[nn.Module, Description]:
    """The full module on the meta device and its description."""
    _check(base)
    network = network_of(base)
    key = (base.model, network.identity(base))
    if key not in _cache:
        with torch.device("meta"):
            module = network.build(base)
        _cache[key] = module, derive(module, base.input_shape)
    return _cache[key]


def _check(base: BaseNetwork) -> None:
    network_of(base)
    if len(base.input_shape) != 3:
        raise ArchitectureError(f"an input shape is (channels, height, width), not {base.input_shape}")
    if not all(1 <= value <= _MAXIMUM for value in (*base.input_shape, base.classes)) or not 0 < base.width <= 4:
        raise ArchitectureError(f"cannot build {base.model} for input {base.input_shape} and {base.classes} classes")
    if len(base.strides) != len(mobilenet_v2.STAGES) or not all(1 <= s <= 4 for s in (base.stem_stride, *base.strides)):
        raise ArchitectureError(f"strides must be {len(mobilenet_v2.STAGES)} numbers from 1 to 4, not {base.strides}")
