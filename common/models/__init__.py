"""The base networks: for each a description (data) and a module (weights)."""

from collections.abc import Mapping
from functools import lru_cache

from torch import nn

from common.errors import ArchitectureError
from common.models import cnn, mlp, mobilenet_v2
from common.models.description import BaseNetwork, Description

_DESCRIBE = {"mobilenet_v2": mobilenet_v2.describe, "cnn": cnn.describe, "mlp": mlp.describe}
_MODULE = {"mobilenet_v2": mobilenet_v2.MobileNetV2, "cnn": cnn.ConvNet, "mlp": mlp.Perceptron}
_MAXIMUM = 4096  # no image side, class count or channel count that we would build for a stranger is larger


@lru_cache(maxsize=64)
def describe(base: BaseNetwork) -> Description:
    """The description of a base network; raises ArchitectureError if no such network can be built."""
    if base.model not in _DESCRIBE:
        raise ArchitectureError(f"unknown base network {base.model!r:.60}; known are {', '.join(_DESCRIBE)}")
    if len(base.input_shape) != 3:
        raise ArchitectureError(f"an input shape is (channels, height, width), not {base.input_shape}")
    if not all(1 <= value <= _MAXIMUM for value in (*base.input_shape, base.classes)) or not 0 < base.width <= 4:
        raise ArchitectureError(f"cannot build {base.model} for input {base.input_shape} and {base.classes} classes")
    if len(base.strides) != len(mobilenet_v2.STAGES) or not all(1 <= s <= 4 for s in (base.stem_stride, *base.strides)):
        raise ArchitectureError(f"strides must be {len(mobilenet_v2.STAGES)} numbers from 1 to 4, not {base.strides}")
    description = _DESCRIBE[base.model](base)
    if not all(layer.positions > 0 and layer.spread > 0 for layer in description.layers):
        raise ArchitectureError(f"{base.model} needs larger images than {base.input_shape[1]}x{base.input_shape[2]}")
    return description


def build_module(base: BaseNetwork, sizes: Mapping[str, int]) -> nn.Module:
    """A fresh module with the given channels per group, initialised from torch's global generator."""
    return _MODULE[base.model](base, sizes)
