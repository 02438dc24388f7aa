"""MobileNetV2 for small images, as the published program has it (kuangliu's CIFAR variant).

Sandler et al. 2018, arXiv:1801.04381, section 3, with these differences: 3x3 stem of stride 1, plain ReLU, an
expansion in the first block too, a projection shortcut wherever a stride-1 block changes its channels, and the third
stage at stride 1. At width 1 on (3, 32, 32): 2,296,922 parameters and 91,154,944 MACs.
"""

import torch
from torch import nn
from torch.nn import functional as F

from common.models.description import BaseNetwork

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
        self.depthwise_conv = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(inner)
        self.project_conv = nn.Conv2d(inner, target, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(target)
        if project_shortcut:
            self.shortcut_conv = nn.Conv2d(source, target, 1, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(target)
        self.project_shortcut = project_shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, source, H, W) -> (N, target, H/stride, W/stride)."""
        hidden = F.relu(self.expand_norm(self.expand_conv(x)), inplace=True)
        hidden = F.relu(self.depthwise_norm(self.depthwise_conv(hidden)), inplace=True)
        result: torch.Tensor = self.project_norm(self.project_conv(hidden))
        if not self.residual:
            return result
        return result + (self.shortcut_norm(self.shortcut_conv(x)) if self.project_shortcut else x)


class MobileNetV2(nn.Module):
    """Logits of shape (N, classes) from images of shape (N, C, H, W).

    `group_names` are the channel groups that architecture files name: stem, blockN.inner, stageN, head.
    """

    def __init__(self, base: BaseNetwork) -> None:
        super().__init__()
        stem, *stages, head = channels(base)
        self.group_names = {"stem_conv": "stem", "head_conv": "head"}
        self.stem_conv = nn.Conv2d(base.input_shape[0], stem, 3, base.stem_stride, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem)
        blocks: list[nn.Module] = []
        source = stem
        for number, target in enumerate(stages):
            expansion, _, count, _ = STAGES[number]
            for position in range(count):
                stride = base.strides[number] if position == 0 else 1
                self.group_names[f"blocks.{len(blocks)}.expand_conv"] = f"block{len(blocks)}.inner"
                self.group_names[f"blocks.{len(blocks)}.project_conv"] = f"stage{number + 1}"
                project_shortcut = stride == 1 and source != target
                blocks.append(InvertedResidual(source, expansion * source, target, stride, project_shortcut))
                source = target
        self.blocks = nn.Sequential(*blocks)
        self.head_conv = nn.Conv2d(source, head, 1, bias=False)
        self.head_norm = nn.BatchNorm2d(head)
        self.classifier = nn.Linear(head, base.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = F.relu(self.stem_norm(self.stem_conv(x)), inplace=True)
        x = self.blocks(x)
        x = F.relu(self.head_norm(self.head_conv(x)), inplace=True)
        result: torch.Tensor = self.classifier(x.mean(dim=(2, 3)))
        return result


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 but never below 90 % of it (Sandler et al.'s code)."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def channels(base: BaseNetwork) -> tuple[int, ...]:
    """Channels of the stem, of each stage and of the head."""
    stages = (scaled(channels, base.width) for _, channels, _, _ in STAGES)
    head = HEAD_CHANNELS if base.width <= 1 else scaled(HEAD_CHANNELS, base.width)
    return (scaled(STEM_CHANNELS, base.width), *stages, head)
