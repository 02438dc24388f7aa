"""Convolutions that train faster compute what PyTorch's compute."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.fast_convolutions import DepthwiseConvolution, PointwiseConvolution, use_fast_convolutions
from common.learning import place

ROOT = Path(__file__).resolve().parents[2]

sides = st.integers(1, 7)


def gradients(module: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of a sum of its sines for the images and every parameter."""
    images = images.clone().requires_grad_()
    output = module(images)
    return [output.detach(), *torch.autograd.grad(output.sin().sum(), [images, *module.parameters()])]


def compare(plain: nn.Conv2d, images: torch.Tensor, kind: type[nn.Conv2d]) -> None:
    """The fast twin of a plain convolution has its output and gradients."""
    plain, images = plain.double(), images.double().contiguous(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    use_fast_convolutions(fast)
    assert type(fast) is kind
    for ours, theirs in zip(gradients(fast, images), gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(deadline=None)
@given(
    size=st.tuples(sides, sides),
    kernel=st.tuples(sides, sides),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    bias=st.booleans(),
)
def test_a_depthwise_convolution_has_the_gradients_of_pytorchs(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], bias: bool
) -> None:
    padding = tuple(max(pad, (long - side + 1) // 2) for pad, long, side in zip(padding, kernel, size, strict=True))
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, kernel, stride, padding, groups=4, bias=bias)
    compare(plain, torch.randn(3, 4, *size), DepthwiseConvolution)


def test_the_gradient_for_the_maps_of_a_depthwise_convolution_stays_channels_last() -> None:
    """In another order than the maps, what comes next in the backward pass takes ten times as long."""
    layer = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    use_fast_convolutions(layer)
    maps = torch.randn(4, 6, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    [gradient] = torch.autograd.grad(layer(maps).square().sum(), [maps])
    assert gradient.stride() == maps.stride()


@settings(deadline=None)
@given(
    size=st.tuples(sides, sides),
    channels=st.tuples(st.integers(1, 7), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    bias=st.booleans(),
)
def test_a_pointwise_convolution_has_the_gradients_of_pytorchs(
    size: tuple[int, int], channels: tuple[int, int], stride: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    plain, images = nn.Conv2d(*channels, 1, stride, bias=bias).double(), torch.randn(3, channels[0], *size).double()
    fast = copy.deepcopy(plain)
    use_fast_convolutions(fast)
    assert type(fast) is PointwiseConvolution
    # what skips pixels is compared in PyTorch's other memory order, in which its own convolution is safe
    for ours, theirs in zip(gradients(fast, images), gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_narrow_convolution_that_skips_pixels_leaves_memory_alone() -> None:
    """In a process of its own, which PyTorch's own convolution crashes."""
    script = """
import torch
from torch import nn
from common.learning import place
for channels in range(1, 8):
    for side in (2, 4, 8):
        module = place(nn.Conv2d(channels, 4, 1, stride=2, bias=False), torch.device("cpu"))
        for _ in range(20):
            images = torch.randn(8, channels, side, side).contiguous(memory_format=torch.channels_last)
            module(images.requires_grad_()).sum().backward()
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
        nn.Conv2d(8, 4, 1, stride=2),
        nn.Conv2d(4, 4, 1, padding=1),
    ],
)
def test_other_convolutions_stay_pytorchs(other: nn.Conv2d) -> None:
    use_fast_convolutions(other)
    assert type(other) is nn.Conv2d


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6))


def test_a_placed_module_has_the_same_names_and_copies_and_pickles_as_itself() -> None:
    plain, placed = network(), place(network(), torch.device("cpu"))
    assert list(placed.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 2, 2)
    wanted = gradients(plain, images)
    for twin in (placed, copy.deepcopy(placed), pickle.loads(pickle.dumps(placed))):
        for ours, theirs in zip(gradients(twin, images), wanted, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_copy_trains_its_own_weights() -> None:
    placed = place(network(), torch.device("cpu"))
    twin = copy.deepcopy(placed)
    twin(torch.randn(2, 3, 2, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    assert all(parameter.grad is None for parameter in placed.parameters())


def test_without_gradients_the_bits_are_pytorchs() -> None:
    plain, placed = network().eval(), place(network(), torch.device("cpu")).eval()
    images = torch.randn(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    assert torch.equal(placed(images), plain.to(memory_format=torch.channels_last)(images))  # type: ignore[call-overload]


def test_autocast_keeps_its_own_convolutions() -> None:
    placed = place(network(), torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        output = placed(torch.randn(2, 3, 2, 2))
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert all(parameter.grad is not None for parameter in placed.parameters())
