"""FedGKT's networks: what a device trains, what the server trains, and the whole network that the two halves make."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from common.architecture import Architecture
from common.arrays import Vector
from common.layout import State, load_weights
from common.learning import place
from common.methods.fedgkt import FedGKTSettings
from common.models.bottleneck import DEVICE_NETWORK, STEM, STEMLESS, WHOLE, clipped, feature_shape
from common.models.description import BaseNetwork


@dataclass(frozen=True)
class Halves:
    """`small` is a device's network, `large` the server's, which takes features.

    `whole` is a stem with the server's network above it, as pretraining has it; in `pair` the features between the two
    are cut where those are that the server learns from, so it is what is scored and kept.
    """

    small: Architecture
    large: Architecture
    whole: Architecture
    pair: Architecture

    @classmethod
    def of(cls, settings: FedGKTSettings, base: BaseNetwork) -> Self:
        """Those for the images and classes of `base`."""
        shape, classes, server = base.input_shape, base.classes, settings.fedgkt_server
        clip = settings.fedgkt_feature_clip
        return cls(
            Architecture.full(BaseNetwork(DEVICE_NETWORK, shape, classes)),
            Architecture.full(BaseNetwork(server + STEMLESS, feature_shape(base), classes)),
            Architecture.full(BaseNetwork(server + WHOLE, shape, classes)),
            Architecture.full(BaseNetwork(clipped(server + WHOLE, clip) if clip else server + WHOLE, shape, classes)),
        )

    def begun_with(self, small: Vector, whole: State) -> Vector:
        """The weights `small` of a device's network, with those it shares with a whole one by name and shape."""
        own = self.small.layout.unflatten(small)
        shared = {name: whole[name] for name in own if name in whole and whole[name].shape == own[name].shape}
        return self.small.layout.flatten({**own, **shared})

    def paired(self, small: Vector, large: Vector, accelerator: torch.device) -> nn.Module:
        """The pair of a device's stem and all of the server's weights, from the flat vectors of both networks.

        So it has no counter of a batch norm, which a checkpoint does not hold: it is the same after a resume.
        """
        stem = {name: values for name, values in self.small.layout.unflatten(small).items() if name.startswith(STEM)}
        module = self.pair.build(0)
        load_weights(module, {**self.large.layout.unflatten(large), **stem})
        return place(module, accelerator)
