"""The multilayer perceptron of the published federated program: one hidden layer of 200 units with dropout 0.5."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from common.models.description import BaseNetwork, ChannelGroup, Description, GatePoint, Layer

HIDDEN = 200


class Perceptron(nn.Module):
    """Logits of shape (N, classes) from images of shape (N, C, H, W)."""

    def __init__(self, base: BaseNetwork, sizes: Mapping[str, int]) -> None:
        super().__init__()
        channels, height, width = base.input_shape
        self.hidden = nn.Linear(channels * height * width, sizes["hidden"])
        self.dropout = nn.Dropout(0.5)
        self.gate = nn.Identity()
        self.classifier = nn.Linear(sizes["hidden"], base.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        result: torch.Tensor = self.classifier(self.gate(F.relu(self.dropout(self.hidden(x.flatten(1))))))
        return result


def describe(base: BaseNetwork) -> Description:
    """The description of the full network; group names are input, hidden, classes."""
    channels, height, width = base.input_shape
    positions = height * width
    groups = (
        ChannelGroup("input", channels),
        ChannelGroup("hidden", max(1, round(HIDDEN * base.width)), prunable=True),
        ChannelGroup("classes", base.classes),
    )
    layers = (
        Layer("hidden", "linear", "input", "hidden", spread=positions, bias=True),
        Layer("classifier", "linear", "hidden", "classes", bias=True),
    )
    steps = ((("input", positions), ("hidden", 1)), (("hidden", 1), ("classes", 1)))
    gates = (GatePoint("hidden", "gate", "classifier"),)
    return Description(groups, layers, steps, {"before-depthwise": gates, "after-depthwise": gates})
