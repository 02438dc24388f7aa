"""FedGKT's networks: what a device trains, what the server trains, and the whole network that the two halves make."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from common.architecture import Architecture
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

    def paired(self, device: State, server: State, accelerator: torch.device) -> nn.Module:
        """The pair with the stem of a device's weights and all of the server's, as layouts give both.

        So it has no counter of a batch norm, which a checkpoint does not hold: it is the same after a resume.
        """
        module = self.pair.build(0)
        stem = {name: values for name, values in device.items() if name.startswith(STEM)}
        load_weights(module, {**server, **stem})
        return place(module, accelerator)
