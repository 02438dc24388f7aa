"""A network as data: channel groups, layers and the tensors alive at each step.

Costs, slicing and aggregation are all derived from this description, so none of them knows a model by name.
A channel group is a set of channels that several tensors share: removing a channel of a group removes one index
from every tensor axis that carries the group.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from common.budget import Costs
from common.layout import Layout

BYTES_PER_VALUE = 4
FLOOR_CHANNELS = 8  # a prunable group never becomes smaller (the published code's value)


@dataclass(frozen=True)
class BaseNetwork:
    """Which full network architectures are cut from.

    `input_shape` is (C, H, W); `width` multiplies every layer's channels; strides matter to mobilenet_v2 alone.
    """

    model: str
    input_shape: tuple[int, int, int]
    classes: int
    width: float = 1.0
    stem_stride: int = 1
    strides: tuple[int, ...] = (1, 1, 2, 2, 1, 2, 1)


@dataclass(frozen=True)
class ChannelGroup:
    """`size` channels named `name`; `prunable` ones carry a gate in the supernet."""

    name: str
    size: int
    prunable: bool = False

    @property
    def floor(self) -> int:
        """Fewest channels the group may keep."""
        return min(self.size, FLOOR_CHANNELS) if self.prunable else self.size


@dataclass(frozen=True)
class Axis:
    """A tensor axis that runs over a channel group, `spread` consecutive entries per channel."""

    group: str
    spread: int = 1


@dataclass(frozen=True)
class Layer:
    """One layer with weights.

    `kind` is conv, depthwise, linear or batch_norm; `taps` is the kernel's area; `positions` is the number of output
    positions H*W; `spread` is how many features each source channel became by flattening.
    """

    name: str
    kind: str
    source: str
    target: str
    taps: int = 1
    positions: int = 1
    spread: int = 1
    bias: bool = False

    def macs(self, sizes: Mapping[str, int]) -> int:
        """Multiply-accumulates for one image; batch norm counts none."""
        if self.kind == "batch_norm":
            return 0
        inputs = 1 if self.kind == "depthwise" else sizes[self.source] * self.spread
        return inputs * sizes[self.target] * self.taps * self.positions

    def params(self, sizes: Mapping[str, int]) -> int:
        """Trainable scalars."""
        if self.kind == "batch_norm":
            return 2 * sizes[self.target]
        inputs = 1 if self.kind == "depthwise" else sizes[self.source] * self.spread
        return sizes[self.target] * (inputs * self.taps + self.bias)

    def tensors(self) -> dict[str, tuple[Axis | None, ...]]:
        """Each tensor of the layer's state dict with what its axes run over; None is an axis of fixed size."""
        out = Axis(self.target)
        if self.kind == "batch_norm":
            names = ("weight", "bias", "running_mean", "running_var")
            return {**{f"{self.name}.{name}": (out,) for name in names}, f"{self.name}.num_batches_tracked": ()}
        if self.kind == "linear":
            weight: tuple[Axis | None, ...] = (out, Axis(self.source, self.spread))
        elif self.kind == "depthwise":
            weight = (out, None, None, None)
        else:
            weight = (out, Axis(self.source), None, None)
        bias = {f"{self.name}.bias": (out,)} if self.bias else {}
        return {f"{self.name}.weight": weight, **bias}


@dataclass(frozen=True)
class GatePoint:
    """Where a gate may sit: the module that is replaced by it and the layer that reads the gated channels.

    `constant_path` is set where a channel gated to zero still leaves a constant behind: the batch norm and the
    convolution that the constant passes through and the batch norm that it ends in.
    """

    group: str
    module: str
    reader: str
    constant_path: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Description:
    """Groups, layers in execution order, and for each step the activations alive: (group, positions) pairs."""

    groups: tuple[ChannelGroup, ...]
    layers: tuple[Layer, ...]
    steps: tuple[tuple[tuple[str, int], ...], ...]
    gates: Mapping[str, tuple[GatePoint, ...]]

    @cached_property
    def full_sizes(self) -> dict[str, int]:
        """Channels of every group in the base network."""
        return {group.name: group.size for group in self.groups}

    @cached_property
    def floor_sizes(self) -> dict[str, int]:
        """Channels of every group in the smallest architecture of the search space."""
        return {group.name: group.floor for group in self.groups}

    @cached_property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups that carry gates."""
        return tuple(group for group in self.groups if group.prunable)

    @cached_property
    def tensor_axes(self) -> dict[str, tuple[Axis | None, ...]]:
        """Every tensor of the state dict, in order, with what its axes run over."""
        return {name: axes for layer in self.layers for name, axes in layer.tensors().items()}

    @cached_property
    def layer_by_name(self) -> dict[str, Layer]:
        """Layers by module path."""
        return {layer.name: layer for layer in self.layers}

    def costs(self, sizes: Mapping[str, int]) -> Costs:
        """What a network with `sizes` channels per group needs, exactly, by counting.

        MACs are the multiply-accumulates of convolution and linear layers for one image. Peak memory is the largest sum
        of live activations over the execution order: inputs and outputs of the running layer and a held residual, at
        batch 1 in float32; element-wise layers work in place.
        """
        macs = sum(layer.macs(sizes) for layer in self.layers)
        params = sum(layer.params(sizes) for layer in self.layers)
        return Costs(macs, params, BYTES_PER_VALUE * max(self.live_elements(sizes)))

    def live_elements(self, sizes: Mapping[str, int]) -> list[int]:
        """Elements alive at each step of the forward pass, for one image."""
        return [sum(sizes[group] * positions for group, positions in step) for step in self.steps]

    def layout(self, sizes: Mapping[str, int]) -> Layout:
        """The layout of the state dict of a network with `sizes` channels per group."""
        taps = {layer.name: layer.taps for layer in self.layers}
        names, shapes = [], []
        for name, axes in self.tensor_axes.items():
            if not axes:
                continue
            side = math.isqrt(taps[name.rpartition(".")[0]])
            fixed = [1, side, side] if len(axes) == 4 and axes[1] is None else [side, side]
            sized = [sizes[axis.group] * axis.spread for axis in axes if axis is not None]
            names.append(name)
            shapes.append(tuple(sized + (fixed if len(axes) == 4 else [])))
        return Layout(tuple(names), tuple(shapes))
