"""The operations of the DARTS cell space as modules (Liu et al. 2019, section 3.1.1); "none" needs no module.

All take and return (N, C, H, W), with H and W halved at stride 2. `affine` says whether batch norms have a scale and a
shift: they have none while searching, where the scale would compete with the architecture parameters.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn


class Halve(nn.Module):
    """Half the sides: two 1x1 convolutions of stride 2, the second one pixel on, side by side, after a ReLU.

    (N, source, H, W) -> (N, target, H/2, W/2), odd sides rounded up.
    """

    def __init__(self, source: int, target: int, affine: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(source, target // 2, 1, bias=False)
        self.conv2 = nn.Conv2d(source, target - target // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(target, affine=affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = torch.relu(x)
        height, width = x.shape[2:]
        # Every second pixel is taken here: a 1x1 convolution of stride 2 with two or four channels in the channels-last
        # format writes beyond the end of its memory in torch 2.14's backward pass.
        first, second = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
        if height % 2 or width % 2:
            second = nn.functional.pad(second, (0, width % 2, 0, height % 2))
        result: torch.Tensor = self.norm(torch.cat([self.conv1(first), self.conv2(second)], dim=1))
        return result


def convolve(source: int, target: int, affine: bool) -> nn.Module:
    """ReLU, 1x1 convolution, batch norm: (N, source, H, W) -> (N, target, H, W)."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(source, target, 1, bias=False), nn.BatchNorm2d(target, affine=affine))


def _pool(kind: Callable[[int], nn.Module]) -> Callable[[int, int, bool], nn.Module]:
    def make(channels: int, stride: int, affine: bool) -> nn.Module:
        pool = kind(stride)
        # While searching, a batch norm brings a pool's output to the size of the other operations'.
        return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))

    return make


def _separable(channels: int, kernel: int, stride: int, affine: bool) -> list[nn.Module]:
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def _twice_separable(kernel: int) -> Callable[[int, int, bool], nn.Module]:
    return lambda channels, stride, affine: nn.Sequential(
        *_separable(channels, kernel, stride, affine), *_separable(channels, kernel, 1, affine)
    )


def _dilated(kernel: int) -> Callable[[int, int, bool], nn.Module]:
    return lambda channels, stride, affine: nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, kernel - 1, dilation=2, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def _skip(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else Halve(channels, channels, affine)


MAKERS: Mapping[str, Callable[[int, int, bool], nn.Module]] = {
    "max_pool_3x3": _pool(lambda stride: nn.MaxPool2d(3, stride, 1)),
    "avg_pool_3x3": _pool(lambda stride: nn.AvgPool2d(3, stride, 1, count_include_pad=False)),
    "skip_connect": _skip,
    "sep_conv_3x3": _twice_separable(3),
    "sep_conv_5x5": _twice_separable(5),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
}
"""What makes an operation for (channels, stride, affine)."""
