"""Convolutions that train faster on a processor than PyTorch's own, with the same parameters and names.

Measured with PyTorch 2.14 (docs/performance.md): for a map narrower than its kernel the library behind PyTorch computes
the gradient of a depthwise convolution's weight up to a hundred times slower than a few products and sums, and a
pointwise convolution of channels-last tensors is one matrix product, which is faster when called by that name. That
library also writes past its memory in the backward pass of a pointwise convolution that skips pixels and reads fewer
than eight channels, as the shortcuts of narrow ResNets do; as a matrix product it does not.
"""

import torch
from torch import nn
from torch.nn import functional as F

UNSAFE_BELOW = 8
"""Input channels below which PyTorch's own pointwise convolutions must not skip pixels."""

BatchOfMaps = torch.Tensor  # (images, channels, height, width)


def use_fast_convolutions(module: nn.Module) -> None:
    """Have the depthwise and pointwise convolutions inside `module`, on the CPU and channels-last, train faster."""
    for convolution in module.modules():
        if type(convolution) is not nn.Conv2d or convolution.padding_mode != "zeros":
            continue
        if _is_depthwise(convolution):
            convolution.__class__ = DepthwiseConvolution
        elif _is_pointwise(convolution):
            convolution.__class__ = PointwiseConvolution


class DepthwiseConvolution(nn.Conv2d):
    """One kernel for each channel; the gradient of kernels wider than the map is summed offset by offset."""

    def forward(self, input: BatchOfMaps) -> BatchOfMaps:
        """As of the base class."""
        narrow = min(input.shape[-2:]) < max(self.kernel_size)
        if not (narrow and _trains(self)):
            return super().forward(input)
        output = narrow_depthwise(input, self.weight, self.stride, self.padding)
        return output if self.bias is None else output + self.bias.view(-1, 1, 1)


class PointwiseConvolution(nn.Conv2d):
    """A kernel of one pixel: each pixel's channels times one matrix."""

    def forward(self, input: BatchOfMaps) -> BatchOfMaps:
        """As of the base class."""
        if not _trains(self):
            return super().forward(input)
        pixels = input[:, :, :: self.stride[0], :: self.stride[1]]
        return F.linear(pixels.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def narrow_depthwise(
    maps: BatchOfMaps, weight: torch.Tensor, stride: tuple[int, ...], padding: tuple[int, ...] | str
) -> BatchOfMaps:
    """A depthwise convolution without dilation, `weight` (channels, 1, rows, columns), for maps narrower than that."""
    result: torch.Tensor = _NarrowDepthwise.apply(maps, weight, stride, padding)
    return result


class _NarrowDepthwise(torch.autograd.Function):
    """A depthwise convolution whose weight's gradient is one product and sum for each offset within the kernel."""

    @staticmethod
    def forward(ctx, maps, weight, stride, padding):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(maps, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        maps, weight = ctx.saved_tensors
        for_maps = for_weight = None
        if ctx.needs_input_grad[0]:
            for_maps = _gradient_of_maps(maps, weight, gradient, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            for_weight = depthwise_weight_gradient(maps, gradient, weight.shape, ctx.stride, ctx.padding)
        return for_maps, for_weight, None, None


def _gradient_of_maps(
    maps: BatchOfMaps,
    weight: torch.Tensor,
    gradient: BatchOfMaps,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
) -> BatchOfMaps:
    """What `torch.nn.grad.conv2d_input` computes, but channels last like `maps`, for what comes next would crawl."""
    stretched, no_bias, only_maps = [1, 1], None, [True, False, False]
    result: torch.Tensor = torch.ops.aten.convolution_backward(
        gradient, maps, weight, no_bias, stride, padding, stretched, False, [0, 0], len(weight), only_maps
    )[0]
    return result


def depthwise_weight_gradient(
    maps: BatchOfMaps,
    gradient: BatchOfMaps,
    shape: tuple[int, ...],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> torch.Tensor:
    """The gradient, of shape (channels, 1, rows, columns), for the weight of a depthwise convolution without dilation.

    `gradient` is that of the convolution's output for the input `maps`.
    """
    maps, gradient = maps.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)  # channels last, in fact
    channels, _, rows, columns = shape
    result = gradient.new_zeros(rows, columns, channels)
    for row in range(rows):
        high_in, high_out = _overlap(row - padding[0], stride[0], maps.shape[1], gradient.shape[1])
        for column in range(columns):
            wide_in, wide_out = _overlap(column - padding[1], stride[1], maps.shape[2], gradient.shape[2])
            products = gradient[:, high_out, wide_out] * maps[:, high_in, wide_in]
            torch.sum(products, (0, 1, 2), out=result[row, column])
    return result.permute(2, 0, 1).unsqueeze(1)


def _overlap(shift: int, stride: int, size_in: int, size_out: int) -> tuple[slice, slice]:
    """Inputs stride * o + shift for the outputs o, and those outputs, as far as the inputs exist."""
    first = max(0, -(shift // stride))
    end = max(first, min(size_out, (size_in - 1 - shift) // stride + 1))
    start = stride * first + shift
    return slice(start, start + stride * (end - first), stride), slice(first, end)


def _is_depthwise(convolution: nn.Conv2d) -> bool:
    one_each = convolution.groups == convolution.in_channels == convolution.out_channels > 1
    return one_each and convolution.dilation == (1, 1) and not isinstance(convolution.padding, str)


def _is_pointwise(convolution: nn.Conv2d) -> bool:
    one_pixel = convolution.groups == 1 and convolution.kernel_size == (1, 1)
    suits = convolution.stride == (1, 1) or convolution.in_channels < UNSAFE_BELOW
    return one_pixel and suits and convolution.padding in ((0, 0), "valid")


def _trains(convolution: nn.Conv2d) -> bool:
    """Whether gradients are wanted, in the type that the parameters have; the module may be on a GPU by now."""
    wanted = convolution.training and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return wanted and convolution.weight.is_cpu
