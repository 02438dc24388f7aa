"""Residual networks of bottleneck blocks for small images, whole and in the two halves that FedGKT trains apart.

He et al. 2016, arXiv:1512.03385, sections 4.1 (bottleneck, expansion 4) and 4.2 (three stages for small images): three
stages of n blocks make 9n + 2 layers. A whole network is a stem and what follows it; `features` and `classify` are the
two parts. FedGKT (He et al. 2020, arXiv:2007.14513) has a device train `resnet8_bottleneck`, the stem and two blocks of
the first stage with a classifier of their own, and a server a network that is whole but for its stem, for which images
are the stem's output. Tensors that two of these networks share have one name in both.

`resnet11_bottleneck_clip_4.0` is the whole network whose stem's output is cut at 4: a pair whose halves were trained
apart with features cut where they travel. The limit is part of the name, so that whoever builds the network that a
file names has the one that was scored.
"""

import re
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import ArchitectureError
from common.models.description import BaseNetwork
from common.models.resnet import Residual, channels

EXPANSION = 4
DEPTHS = {"resnet11": 1, "resnet29": 3, "resnet56": 6, "resnet110": 12}  # blocks in each stage
WHOLE = "_bottleneck"
STEMLESS = "_bottleneck_stemless"
CLIP = "_clip_"
STEM = "stem_"  # what the names of the stem's tensors begin with
DEVICE_NETWORK = "resnet8" + WHOLE


class Bottleneck(Residual):
    """1x1, 3x3 and 1x1 convolutions added to their input; (N, source, H, W) -> (N, 4 planes, H/stride, W/stride)."""

    def __init__(self, source: int, planes: int, stride: int) -> None:
        super().__init__()
        target = EXPANSION * planes
        self.conv1 = nn.Conv2d(source, planes, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, target, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(target)
        self._make_shortcut(source, target, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, source, H, W) -> (N, 4 planes, H/stride, W/stride)."""
        hidden = F.relu(self.norm1(self.conv1(x)), inplace=True)
        hidden = F.relu(self.norm2(self.conv2(hidden)), inplace=True)
        return self._added(self.norm3(self.conv3(hidden)), x)


class BottleneckResNet(nn.Module):
    """Logits (N, classes) from images, or without a stem from features, of the base's shape (N, C, H, W).

    `depths` has the number of blocks of each stage; features above `largest` are cut, if it is given.
    """

    def __init__(
        self, depths: tuple[int, ...], has_stem: bool, base: BaseNetwork, *, largest: float | None = None
    ) -> None:
        super().__init__()
        self.largest = largest
        stages = channels(base)
        source = base.input_shape[0]
        self.classes = base.classes
        self.feature_shape = feature_shape(base)
        if has_stem:
            self.stem_conv = nn.Conv2d(source, stages[0], 3, 1, 1, bias=False)
            self.stem_norm = nn.BatchNorm2d(stages[0])
            source = stages[0]
        self.has_stem = has_stem
        blocks = []
        for number, (planes, depth) in enumerate(zip(stages, depths, strict=False)):
            for position in range(depth):
                blocks.append(Bottleneck(source, planes, 2 if number > 0 and position == 0 else 1))
                source = EXPANSION * planes
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(source, base.classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """What the stem makes of images: (N, C, H, W) -> (N, 16, H, W), none below zero."""
        return F.relu(self.stem_norm(self.stem_conv(images)), inplace=True)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """What follows the stem: (N, 16, H, W) -> (N, classes)."""
        result: torch.Tensor = self.classifier(self.blocks(features).mean(dim=(2, 3)))
        return result

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        features = self.features(x) if self.has_stem else x
        return self.classify(features if self.largest is None else features.clamp(max=self.largest))


def feature_shape(base: BaseNetwork) -> tuple[int, int, int]:
    """Shape (C, H, W) of what the stem makes of one image; its stride is 1."""
    return channels(base)[0], base.input_shape[1], base.input_shape[2]


FACTORIES: dict[str, Callable[[BaseNetwork], nn.Module]] = {
    DEVICE_NETWORK: partial(BottleneckResNet, (2,), True),
    **{name + WHOLE: partial(BottleneckResNet, (depth,) * 3, True) for name, depth in DEPTHS.items()},
    **{name + STEMLESS: partial(BottleneckResNet, (depth,) * 3, False) for name, depth in DEPTHS.items()},
}


def clipped(model: str, largest: float) -> str:
    """The name of the whole network `model` whose features are cut at `largest`.

    >>> clipped("resnet11_bottleneck", 4)
    'resnet11_bottleneck_clip_4.0'
    """
    return f"{model}{CLIP}{float(largest)!r}"


def clipped_factory(model: str) -> Callable[[BaseNetwork], nn.Module] | None:
    """What builds the network of a name that `clipped` made; None for one that is of another kind.

    Raises ArchitectureError for a limit that `clipped` would not have written, so that a network has one name.
    """
    whole, clip, limit = model.partition(CLIP)
    if not clip or not whole.endswith(WHOLE) or whole.removesuffix(WHOLE) not in DEPTHS:
        return None
    number = re.fullmatch(r"[0-9]{1,30}(\.[0-9]{1,30})?(e[+-][0-9]{1,3})?", limit)
    largest = float(limit) if number else 0.0
    if not 0 < largest < float("inf") or clipped(whole, largest) != model:
        raise ArchitectureError(f"{model!r:.80} is cut at no limit; {clipped(whole, 4)} is one that is cut at 4")
    return partial(BottleneckResNet, (DEPTHS[whole.removesuffix(WHOLE)],) * 3, True, largest=largest)
