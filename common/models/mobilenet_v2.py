"""MobileNetV2 for small images, as the published program has it (kuangliu's CIFAR variant).

Sandler et al. 2018, arXiv:1801.04381, section 3, with these differences: 3x3 stem of stride 1, plain ReLU, an
expansion in the first block too, a projection shortcut wherever a stride-1 block changes its channels, and the third
stage at stride 1. At width 1 on (3, 32, 32): 2,296,922 parameters and 91,154,944 MACs.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from common.models.description import BaseNetwork, ChannelGroup, Description, GatePoint, Layer

# (expansion, channels out, blocks, published stride) of each stage; Sandler et al., table 2
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project back; (N, source, H, W) -> (N, target, H/stride, W/stride)."""

    def __init__(self, source: int, inner: int, target: int, stride: int, project_shortcut: bool) -> None:
        super().__init__()
        self.residual = stride == 1
        self.expand_conv = nn.Conv2d(source, inner, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(inner)
        self.before_depthwise = nn.Identity()
        self.depthwise_conv = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(inner)
        self.after_depthwise = nn.Identity()
        self.project_conv = nn.Conv2d(inner, target, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(target)
        if project_shortcut:
            self.shortcut_conv = nn.Conv2d(source, target, 1, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(target)
        self.project_shortcut = project_shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, source, H, W) -> (N, target, H/stride, W/stride)."""
        hidden = self.before_depthwise(F.relu(self.expand_norm(self.expand_conv(x)), inplace=True))
        hidden = self.after_depthwise(F.relu(self.depthwise_norm(self.depthwise_conv(hidden)), inplace=True))
        result: torch.Tensor = self.project_norm(self.project_conv(hidden))
        if not self.residual:
            return result
        return result + (self.shortcut_norm(self.shortcut_conv(x)) if self.project_shortcut else x)


class MobileNetV2(nn.Module):
    """Logits of shape (N, classes) from images of shape (N, C, H, W)."""

    def __init__(self, base: BaseNetwork, sizes: Mapping[str, int]) -> None:
        super().__init__()
        blocks = _blocks(base)
        self.stem_conv = nn.Conv2d(base.input_shape[0], sizes["stem"], 3, base.stem_stride, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(sizes["stem"])
        self.blocks = nn.Sequential(
            *(
                InvertedResidual(
                    sizes[block.source], sizes[block.inner], sizes[block.target], block.stride, block.project_shortcut
                )
                for block in blocks
            )
        )
        self.head_conv = nn.Conv2d(sizes[blocks[-1].target], sizes["head"], 1, bias=False)
        self.head_norm = nn.BatchNorm2d(sizes["head"])
        self.classifier = nn.Linear(sizes["head"], base.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = F.relu(self.stem_norm(self.stem_conv(x)), inplace=True)
        x = self.blocks(x)
        x = F.relu(self.head_norm(self.head_conv(x)), inplace=True)
        result: torch.Tensor = self.classifier(x.mean(dim=(2, 3)))
        return result


class _Block:
    """Names and numbers of one inverted residual block."""

    def __init__(self, index: int, source: ChannelGroup, expansion: int, target: ChannelGroup, stride: int) -> None:
        self.path = f"blocks.{index}"
        self.source, self.target, self.stride = source.name, target.name, stride
        self.inner = f"block{index}.inner"
        self.inner_size = expansion * source.size
        self.target_group = target
        self.project_shortcut = stride == 1 and source.size != target.size


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 but never below 90 % of it (Sandler et al.'s code)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def _blocks(base: BaseNetwork) -> list[_Block]:
    blocks: list[_Block] = []
    source = ChannelGroup("stem", scaled(STEM_CHANNELS, base.width))
    for number, ((expansion, channels, count, _), stride) in enumerate(zip(STAGES, base.strides, strict=True), start=1):
        target = ChannelGroup(f"stage{number}", scaled(channels, base.width))
        if stride == 1 and source.size == target.size:
            target = source  # an identity shortcut adds the two channel by channel, so they are one group
        for position in range(count):
            blocks.append(_Block(len(blocks), source, expansion, target, stride if position == 0 else 1))
            source = target
    return blocks


def describe(base: BaseNetwork) -> Description:
    """The description of the full network; group names are stem, blockN.inner, stageN, head, classes."""
    channels, height, width = base.input_shape
    blocks = _blocks(base)
    groups = [ChannelGroup("input", channels), ChannelGroup("stem", scaled(STEM_CHANNELS, base.width))]
    height, width = _strided(height, base.stem_stride), _strided(width, base.stem_stride)
    area = height * width
    layers = [
        Layer("stem_conv", "conv", "input", "stem", 9, area),
        Layer("stem_norm", "batch_norm", "stem", "stem", 1, area),
    ]
    steps: list[tuple[tuple[str, int], ...]] = [(("input", base.input_shape[1] * base.input_shape[2]), ("stem", area))]
    before, after = [], []
    for block in blocks:
        inner, source, target, path = block.inner, block.source, block.target, block.path
        groups.append(ChannelGroup(inner, block.inner_size, prunable=True))
        if block.target_group.name not in {group.name for group in groups}:
            groups.append(block.target_group)
        wide = area
        height, width = _strided(height, block.stride), _strided(width, block.stride)
        area = height * width
        layers += [
            Layer(f"{path}.expand_conv", "conv", source, inner, 1, wide),
            Layer(f"{path}.expand_norm", "batch_norm", inner, inner, 1, wide),
            Layer(f"{path}.depthwise_conv", "depthwise", inner, inner, 9, area),
            Layer(f"{path}.depthwise_norm", "batch_norm", inner, inner, 1, area),
            Layer(f"{path}.project_conv", "conv", inner, target, 1, area),
            Layer(f"{path}.project_norm", "batch_norm", target, target, 1, area),
        ]
        held = ((source, wide),) if block.stride == 1 else ()
        steps += [
            ((source, wide), (inner, wide)),
            (*held, (inner, wide), (inner, area)),
            (*held, (inner, area), (target, area)),
        ]
        if block.project_shortcut:
            layers += [
                Layer(f"{path}.shortcut_conv", "conv", source, target, 1, area),
                Layer(f"{path}.shortcut_norm", "batch_norm", target, target, 1, area),
            ]
            steps.append(((source, wide), (target, area), (target, area)))
        constant = (f"{path}.depthwise_norm", f"{path}.project_conv", f"{path}.project_norm")
        before.append(GatePoint(inner, f"{path}.before_depthwise", f"{path}.depthwise_conv", constant))
        after.append(GatePoint(inner, f"{path}.after_depthwise", f"{path}.project_conv"))
    last = blocks[-1].target
    groups += [
        ChannelGroup("head", HEAD_CHANNELS if base.width <= 1 else scaled(HEAD_CHANNELS, base.width)),
        ChannelGroup("classes", base.classes),
    ]
    layers += [
        Layer("head_conv", "conv", last, "head", 1, area),
        Layer("head_norm", "batch_norm", "head", "head", 1, area),
        Layer("classifier", "linear", "head", "classes", bias=True),
    ]
    steps += [((last, area), ("head", area)), (("head", area), ("head", 1)), (("head", 1), ("classes", 1))]
    return Description(
        tuple(groups), tuple(layers), tuple(steps), {"before-depthwise": tuple(before), "after-depthwise": tuple(after)}
    )


def _strided(size: int, stride: int) -> int:
    """Output length of a padded 3x3 convolution."""
    return (size - 1) // stride + 1
