"""Which networks there are, by name."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from torch import nn

from common.errors import ArchitectureError
from common.models import cnn, mlp, mobilenet_v2
from common.models.description import BaseNetwork


@dataclass(frozen=True)
class Network:
    """How a base network is built; bases of one `identity` give the same network."""

    build: Callable[[BaseNetwork], nn.Module]
    identity: Callable[[BaseNetwork], Hashable]


OWN = {
    "mobilenet_v2": Network(
        mobilenet_v2.MobileNetV2,
        lambda base: (base.input_shape, base.classes, mobilenet_v2.channels(base), base.stem_stride, base.strides),
    ),
    "cnn": Network(cnn.ConvNet, lambda base: base),
    "mlp": Network(mlp.Perceptron, lambda base: base),
}


def network_of(base: BaseNetwork) -> Network:
    """The network of a base; raises ArchitectureError if there is none of its name."""
    if base.model not in OWN:
        raise ArchitectureError(f"unknown base network {base.model!r:.60}; known are {', '.join(OWN)}")
    return OWN[base.model]
