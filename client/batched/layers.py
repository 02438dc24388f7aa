"""The layers of several equal networks side by side: the channels of all devices next to each other in one tensor.

Maps are (B, devices * C, H, W), channels last in memory, and features (B, devices * F), the first device's first. So
what works channel by channel (activations, pooling, means over pixels, additions) stays as the network's author wrote
it, and only layers with weights, which are (devices, ...), and dropout are replaced.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from common.fast_convolutions import narrow_depthwise

Stacked = torch.Tensor  # (B, devices * C, H, W) or (B, devices * F)


class Draws:
    """A random generator for each device, from which torch draws as if the device were alone."""

    def __init__(self, seeds: Sequence[int], accelerator: torch.device) -> None:
        self._generator = _default_generator(accelerator)
        self._states = [torch.Generator(accelerator).manual_seed(seed).get_state() for seed in seeds]

    @contextmanager
    def of(self, device: int) -> Iterator[None]:
        """Inside the block torch's global generator is that of the device of this number."""
        self._generator.set_state(self._states[device])
        try:
            yield
        finally:
            self._states[device] = self._generator.get_state()


@dataclass
class Now:
    """What layers must know of the batch that they are given.

    `sizes` says how many of its images are each device's own, the first ones; None that all are.
    """

    sizes: Sequence[int] | None = None
    draws: Draws = field(default_factory=lambda: Draws([], torch.device("cpu")))


class StackedConvolution(nn.Conv2d):
    """A convolution of each device's channels by its own `weight`, (devices, out, in / groups, rows, columns).

    The gradient of a product is written to `place`, of the weight's shape, if there is one.
    """

    place: torch.Tensor | None = None

    def forward(self, input: Stacked) -> Stacked:
        """(B, devices * in, H, W) -> (B, devices * out, H', W')."""
        devices = len(self.weight)
        if self.kernel_size == (1, 1) and self.groups == 1 and self.padding in ((0, 0), "valid"):
            pixels = input[:, :, :: self.stride[0], :: self.stride[1]].permute(0, 2, 3, 1)
            rows = pixels.reshape(-1, devices, self.in_channels)
            result = products(rows, self.weight.flatten(2), self.place)
            output = result.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)
        elif self._is_narrow_depthwise(input):
            output = narrow_depthwise(input, self.weight.flatten(0, 1), self.stride, self.padding)
        else:
            groups = devices * self.groups
            weight = self.weight.flatten(0, 1)
            output = F.conv2d(input, weight, None, self.stride, self.padding, self.dilation, groups)
        return output if self.bias is None else output + self.bias.reshape(-1, 1, 1)

    def _is_narrow_depthwise(self, input: Stacked) -> bool:
        """Whether PyTorch's own gradient would be slow; see `common.fast_convolutions`."""
        one_each = self.groups == self.in_channels == self.out_channels
        plain = self.dilation == (1, 1) and not isinstance(self.padding, str)
        return input.is_cpu and one_each and plain and min(input.shape[-2:]) < max(self.kernel_size)


class StackedLinear(nn.Linear):
    """Each device's features times its own `weight`, (devices, out, in); `place` is that of a convolution."""

    place: torch.Tensor | None = None

    def forward(self, input: Stacked) -> Stacked:
        """(B, devices * in) -> (B, devices * out)."""
        rows = input.reshape(len(input), len(self.weight), self.in_features)
        result = products(rows, self.weight, self.place).flatten(1)
        return result if self.bias is None else result + self.bias.reshape(-1)


class _StackedNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm of each device's channels over its own images; all its tensors are (devices, C)."""

    now: Now

    def forward(self, input: Stacked) -> Stacked:
        """Of the same shape; images that are no device's own come out as anything finite."""
        weight, bias = _flat(self.weight), _flat(self.bias)
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        assert variance is not None
        assert self.momentum is not None
        if self.now.sizes is None or not self.training:
            return F.batch_norm(
                input, mean.view(-1), variance.view(-1), weight, bias, self.training, self.momentum, self.eps
            )
        maps = unstacked(input, len(mean))  # (B, devices, C, ...)
        places = (1,) * (input.dim() - 1)
        sizes = torch.tensor(self.now.sizes, device=input.device)
        own = (torch.arange(len(input), device=input.device)[:, None] < sizes).view(*maps.shape[:2], *places)
        over = [0, *range(3, maps.dim())]
        count = (sizes * maps[0, 0, 0].numel()).view(-1, 1).to(input.dtype)
        spread = (len(mean), -1, *places[1:])
        batch_mean = (maps * own).sum(over) / count
        centred = (maps - batch_mean.view(spread)) * own
        batch_variance = centred.square().sum(over) / count
        with torch.no_grad():
            mean.lerp_(batch_mean, self.momentum)
            variance.lerp_(batch_variance * (count / (count - 1)), self.momentum)
        scale = torch.rsqrt(batch_variance + self.eps)
        output = centred * (scale if self.weight is None else scale * self.weight).view(spread)
        if self.bias is not None:
            output = output + self.bias.view(spread)
        result: Stacked = output.flatten(1, 2)
        return result


class StackedNorm1d(_StackedNorm, nn.BatchNorm1d):
    """Of features."""


class StackedNorm2d(_StackedNorm, nn.BatchNorm2d):
    """Of maps."""


class StackedDropout(nn.Dropout):
    """Dropout that draws for each device what it would draw alone."""

    now: Now
    devices: int

    def forward(self, input: Stacked) -> Stacked:
        """Of the same shape; images that are no device's own come out as zero."""
        if not self.training or self.p == 0:
            return input
        kept = []
        for device in range(self.devices):
            count = len(input) if self.now.sizes is None else self.now.sizes[device]
            ones = torch.ones_like(unstacked(input, self.devices)[:count, device])
            with self.now.draws.of(device):
                mask = F.dropout(ones, self.p)
            kept.append(F.pad(mask, (0, 0) * (input.dim() - 1) + (0, len(input) - count)))
        return input * torch.cat(kept, 1)


def products(rows: torch.Tensor, matrices: torch.Tensor, place: torch.Tensor | None = None) -> torch.Tensor:
    """Each device's rows times its own matrix: (R, devices, in), (devices, out, in) -> (R, devices, out).

    The gradient of the matrices is written to `place`, of their number of values, if there is one.
    """
    result: torch.Tensor = _Products.apply(rows, matrices, place)
    return result


class _Products(torch.autograd.Function):
    """One batched product for what would be a product for each device; nothing is copied to be in its order."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, matrices: torch.Tensor, place: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(rows, matrices)
        ctx.place = place
        result = rows.new_empty(len(rows), *matrices.shape[:2])
        torch.bmm(rows.transpose(0, 1), matrices.transpose(1, 2), out=result.transpose(0, 1))
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        rows, matrices = ctx.saved_tensors
        gradient = gradient.contiguous()
        for_rows = for_matrices = None
        if ctx.needs_input_grad[0]:
            for_rows = rows.new_empty(rows.shape)
            torch.bmm(gradient.transpose(0, 1), matrices, out=for_rows.transpose(0, 1))
        if ctx.needs_input_grad[1]:
            for_matrices = rows.new_empty(matrices.shape) if ctx.place is None else ctx.place.view(matrices.shape)
            torch.bmm(gradient.permute(1, 2, 0), rows.transpose(0, 1), out=for_matrices)
        return for_rows, for_matrices, None


def unstacked(values: Stacked, devices: int) -> torch.Tensor:
    """(B, devices * C, ...) -> (B, devices, C, ...)."""
    return values.reshape(len(values), devices, -1, *values.shape[2:])


def _flat(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.reshape(-1)


def _default_generator(accelerator: torch.device) -> torch.Generator:
    """The one that torch's functions draw from."""
    if accelerator.type == "cpu":
        return torch.default_generator
    index = torch.cuda.current_device() if accelerator.index is None else accelerator.index
    generator: torch.Generator = torch.cuda.default_generators[index]
    return generator
