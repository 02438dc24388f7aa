"""Residual networks for small images: ResNet-8, 20, 56 and 110 (He et al. 2016, arXiv:1512.03385, section 4.2).

Three stages of n blocks, 6n + 2 layers. Where a block changes the number of channels, its shortcut is a 1x1
convolution (the paper's option B) and not padding with zeros, so that every channel is made by a layer.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from common.models.description import BaseNetwork

DEPTHS = {"resnet8": 1, "resnet20": 3, "resnet56": 9, "resnet110": 18}  # blocks in each stage
CHANNELS = (16, 32, 64)


class Residual(nn.Module):
    """A block that is added to its input, which a 1x1 convolution brings to the shape of the result if need be."""

    def _make_shortcut(self, source: int, target: int, stride: int) -> None:
        self.projects = stride != 1 or source != target
        if self.projects:
            self.shortcut_conv = nn.Conv2d(source, target, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(target)

    def _added(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.shortcut_norm(self.shortcut_conv(x)) if self.projects else x
        return F.relu(hidden + shortcut, inplace=True)


class BasicBlock(Residual):
    """Two 3x3 convolutions added to their input; (N, source, H, W) -> (N, target, H/stride, W/stride)."""

    def __init__(self, source: int, target: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(source, target, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(target)
        self.conv2 = nn.Conv2d(target, target, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(target)
        self._make_shortcut(source, target, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, source, H, W) -> (N, target, H/stride, W/stride)."""
        hidden = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return self._added(self.norm2(self.conv2(hidden)), x)


class ResNet(nn.Module):
    """Logits of shape (N, classes) from images of shape (N, C, H, W); `depth` blocks in each of the three stages."""

    def __init__(self, depth: int, base: BaseNetwork) -> None:
        super().__init__()
        stages = channels(base)
        self.stem_conv = nn.Conv2d(base.input_shape[0], stages[0], 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stages[0])
        blocks, source = [], stages[0]
        for number, target in enumerate(stages):
            for position in range(depth):
                blocks.append(BasicBlock(source, target, 2 if number > 0 and position == 0 else 1))
                source = target
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(source, base.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = self.blocks(F.relu(self.stem_norm(self.stem_conv(x)), inplace=True))
        result: torch.Tensor = self.classifier(x.mean(dim=(2, 3)))
        return result


def channels(base: BaseNetwork) -> tuple[int, ...]:
    """Channels of the three stages."""
    return tuple(max(1, round(size * base.width)) for size in CHANNELS)


FACTORIES: dict[str, Callable[[BaseNetwork], nn.Module]] = {
    name: partial(ResNet, depth) for name, depth in DEPTHS.items()
}
