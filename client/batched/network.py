"""One network for several devices: its module with stacked layers, and every device's weights in a row of a matrix."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from client.batched.layers import (
    Draws,
    Now,
    StackedConvolution,
    StackedDropout,
    StackedLinear,
    StackedNorm1d,
    StackedNorm2d,
)
from common.arrays import Vector
from common.layout import Layout

KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: StackedConvolution,
    nn.Linear: StackedLinear,
    nn.BatchNorm1d: StackedNorm1d,
    nn.BatchNorm2d: StackedNorm2d,
    nn.Dropout: StackedDropout,
}
"""What stands in for a layer when several networks are stacked."""


def stack_layers(module: nn.Module) -> str:
    """Replace the layers of `module`, in place, by stacked ones without tensors; why not, in words, if that cannot be.

    That every layer has its stand-in does not mean yet that what the module does in between works channel by channel;
    see `client.batched.trial`.
    """
    for path, layer in module.named_modules():
        kind = KINDS.get(type(layer))
        if kind is None:
            if layer._parameters or layer._buffers:
                return f"its layer {path or 'outside all'} is {type(layer).__name__}, which cannot be stacked"
            continue
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            return f"its layer {path} pads with {layer.padding_mode}"
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and (
            layer.running_mean is None or layer.momentum is None
        ):
            return f"its layer {path} keeps no running average of a fixed momentum"
        if any(not parameter.requires_grad for parameter in layer.parameters(recurse=False)):
            return f"its layer {path} is not to be trained"
        layer.__class__ = kind
        for name in (*layer._parameters, *layer._buffers):
            layer._parameters.pop(name, None)
            layer._buffers.pop(name, None)
            setattr(layer, name, None)
    return ""


@dataclass(frozen=True)
class _Part:
    """One tensor of the network: whose, its shape, and where a row and where a flat vector of the layout hold it."""

    layer: nn.Module
    attribute: str
    shape: tuple[int, ...]
    start: int
    end: int
    source: slice

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """The tensor in each of the rows (devices, ...): a view of shape (devices, *shape)."""
        return rows[:, self.start : self.end].view(len(rows), *self.shape)


class StackedNetwork:
    """Networks of one layout side by side, with weights that were sent to each device.

    `module` takes (B, devices * C, H, W) and returns (B, devices * classes). `parameters` and `gradients` are
    (devices, number of parameters), running statistics apart; the first dimension is always that of devices.
    """

    def __init__(
        self,
        template: nn.Module,
        layout: Layout,
        sent: Sequence[Vector],
        draws: Draws,
        accelerator: torch.device,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`template` is a module that `stack_layers` went through; it stays as it is. `dtype` is torch's default."""
        self.module = copy.deepcopy(template)
        self._now = Now(draws=draws)
        layers = dict(self.module.named_modules())
        for layer in layers.values():
            if type(layer) in KINDS.values():
                setattr(layer, "now", self._now)  # noqa: B010
        self._parts: list[_Part] = []
        self._statistics: list[_Part] = []
        first = 0
        for name, shape in zip(layout.names, layout.shapes, strict=True):
            path, _, attribute = name.rpartition(".")
            parts = self._statistics if attribute.startswith("running_") else self._parts
            start, size = parts[-1].end if parts else 0, math.prod(shape)
            source = slice(first, first + size)
            parts.append(_Part(layers[path], attribute, tuple(shape), start, start + size, source))
            first += size
        self.parameters = torch.empty(len(sent), self._parts[-1].end, device=accelerator, dtype=dtype)
        self.gradients = torch.empty_like(self.parameters)
        # each statistic is a matrix of its own, for batch norms update those of all devices as one vector
        self._running = [
            torch.empty(len(sent), *part.shape, device=accelerator, dtype=dtype) for part in self._statistics
        ]
        for device, vector in enumerate(sent):
            self._fill(device, vector)
        self._leaves: list[torch.Tensor] = []
        self.use(len(sent))

    def row(self, vector: Vector) -> torch.Tensor:
        """What a row of `parameters` holds of a flat vector of the layout, (number of parameters,)."""
        return _joined(vector, self._parts).to(self.parameters)

    def vector(self, device: int) -> Vector:
        """The weights of a device now, as a flat vector of the layout."""
        parameters = self.parameters[device].cpu()
        statistics = torch.cat([running[device] for running in self._running]).cpu() if self._running else parameters
        vector = torch.empty(sum(part.end - part.start for part in (*self._parts, *self._statistics)))
        for values, parts in ((parameters, self._parts), (statistics, self._statistics)):
            for part in parts:
                vector[part.source] = values[part.start : part.end]
        return vector.numpy()

    def use(self, devices: int, sizes: Sequence[int] | None = None) -> None:
        """From now on the module is of the first so many devices, each of which has so many images in the batch.

        Without `sizes` all of the batch's images are its own; else they are the first ones, and the rest is padding.
        """
        self._now.sizes = sizes
        if len(self._leaves) and len(self._leaves[0]) == devices:
            return
        self._leaves = []
        for part in self._parts:
            leaf = part.of(self.parameters[:devices]).detach().requires_grad_()
            self._leaves.append(leaf)
            setattr(part.layer, part.attribute, leaf)
            if part.attribute == "weight":
                setattr(part.layer, "place", part.of(self.gradients[:devices]))  # noqa: B010
        for part, running in zip(self._statistics, self._running, strict=True):
            setattr(part.layer, part.attribute, running[:devices])
        for layer in self.module.modules():
            if isinstance(layer, StackedDropout):
                layer.devices = devices

    def backward(self, objective: torch.Tensor) -> None:
        """Set the `gradients` of the devices in use to those of a scalar."""
        found = torch.autograd.grad(objective, self._leaves)
        for part, gradient in zip(self._parts, found, strict=True):
            place = part.of(self.gradients[: len(gradient)])
            if gradient.data_ptr() != place.data_ptr():  # a product has written it there already
                place.copy_(gradient)

    def _fill(self, device: int, vector: Vector) -> None:
        with torch.no_grad():
            self.parameters[device] = self.row(vector)
            for part, running in zip(self._statistics, self._running, strict=True):
                running[device] = torch.from_numpy(vector[part.source])


def _joined(vector: Vector, parts: Sequence[_Part]) -> torch.Tensor:
    """The stretches of a flat vector that hold these parts, one after the other."""
    values = torch.from_numpy(vector)
    return torch.cat([values[part.source] for part in parts])
