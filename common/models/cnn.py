"""The small convolutional network of the published federated program (LeNet-5's shape).

Two 5x5 convolutions with max pooling, then three linear layers. At width 1 on (3, 32, 32): 62,006 parameters. Images
with a side below 16 are padded, so that 8x8 digits keep something to pool.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from common.models.description import BaseNetwork, ChannelGroup, Description, GatePoint, Layer

KERNEL = 5
CHANNELS = {"conv1": 6, "conv2": 16, "hidden1": 120, "hidden2": 84}


class ConvNet(nn.Module):
    """Logits of shape (N, classes) from images of shape (N, C, H, W)."""

    def __init__(self, base: BaseNetwork, sizes: Mapping[str, int]) -> None:
        super().__init__()
        padding = _padding(base)
        self.conv1 = nn.Conv2d(base.input_shape[0], sizes["conv1"], KERNEL, padding=padding)
        self.gate1 = nn.Identity()
        self.conv2 = nn.Conv2d(sizes["conv1"], sizes["conv2"], KERNEL, padding=padding)
        self.gate2 = nn.Identity()
        self.hidden1 = nn.Linear(sizes["conv2"] * _areas(base)[3], sizes["hidden1"])
        self.gate3 = nn.Identity()
        self.hidden2 = nn.Linear(sizes["hidden1"], sizes["hidden2"])
        self.gate4 = nn.Identity()
        self.classifier = nn.Linear(sizes["hidden2"], base.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = self.gate1(F.max_pool2d(F.relu(self.conv1(x)), 2))
        x = self.gate2(F.max_pool2d(F.relu(self.conv2(x)), 2)).flatten(1)
        x = self.gate3(F.relu(self.hidden1(x)))
        x = self.gate4(F.relu(self.hidden2(x)))
        result: torch.Tensor = self.classifier(x)
        return result


def describe(base: BaseNetwork) -> Description:
    """The description of the full network; group names are conv1, conv2, hidden1, hidden2, classes."""
    channels, height, width = base.input_shape
    first, pooled, second, spread = _areas(base)
    sizes = {name: max(1, round(size * base.width)) for name, size in CHANNELS.items()}
    groups = (
        ChannelGroup("input", channels),
        *(ChannelGroup(name, size, prunable=True) for name, size in sizes.items()),
        ChannelGroup("classes", base.classes),
    )
    layers = (
        Layer("conv1", "conv", "input", "conv1", KERNEL**2, first, bias=True),
        Layer("conv2", "conv", "conv1", "conv2", KERNEL**2, second, bias=True),
        Layer("hidden1", "linear", "conv2", "hidden1", spread=spread, bias=True),
        Layer("hidden2", "linear", "hidden1", "hidden2", bias=True),
        Layer("classifier", "linear", "hidden2", "classes", bias=True),
    )
    steps = (
        (("input", height * width), ("conv1", first)),
        (("conv1", first), ("conv1", pooled)),
        (("conv1", pooled), ("conv2", second)),
        (("conv2", second), ("conv2", spread)),
        (("conv2", spread), ("hidden1", 1)),
        (("hidden1", 1), ("hidden2", 1)),
        (("hidden2", 1), ("classes", 1)),
    )
    gates = tuple(
        GatePoint(group, f"gate{number}", reader)
        for number, (group, reader) in enumerate(
            (("conv1", "conv2"), ("conv2", "hidden1"), ("hidden1", "hidden2"), ("hidden2", "classifier")), start=1
        )
    )
    return Description(groups, layers, steps, {"before-depthwise": gates, "after-depthwise": gates})


def _padding(base: BaseNetwork) -> int:
    return KERNEL // 2 if min(base.input_shape[1:]) < 16 else 0


def _areas(base: BaseNetwork) -> tuple[int, int, int, int]:
    """Positions after the first convolution, its pooling, the second convolution, its pooling."""
    loss = KERNEL - 1 - 2 * _padding(base)
    areas: list[int] = []
    height, width = base.input_shape[1:]
    for _ in range(2):
        height, width = height - loss, width - loss
        areas.append(height * width)
        height, width = height // 2, width // 2
        areas.append(height * width)
    return areas[0], areas[1], areas[2], areas[3]
