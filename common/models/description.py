"""A network as data: channel groups, layers, blocks and the tensors alive at each step.

Costs, slicing and aggregation are all derived from this description, so none of them knows a model by name; it is
itself derived from the module by `common.models.trace`. A channel group is a set of channels that several tensors
share: removing a channel of a group removes it from every tensor axis that carries the group.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TypeAlias

from common.budget import Costs, LocalTraining
from common.data.batches import largest_batch
from common.layout import Layout
from common.models.counting import Counted, Term, entry_terms, is_there, mac_terms, sum_of, terms_of
from common.rates import COUNTED

BYTES_PER_VALUE = 4
FLOOR_CHANNELS = 8  # a prunable group never becomes smaller (the published code's value)


@dataclass(frozen=True)
class BaseNetwork:
    """Which full network architectures are cut from.

    `input_shape` is (C, H, W). `width` multiplies the channels of our own networks' layers (others have width 1);
    strides matter to mobilenet_v2 alone.
    """

    model: str
    input_shape: tuple[int, int, int]
    classes: int
    width: float = 1.0
    stem_stride: int = 1
    strides: tuple[int, ...] = (1, 1, 2, 2, 1, 2, 1)


@dataclass(frozen=True)
class ChannelGroup:
    """`size` channels named `name`.

    `prunable` groups are the search space `inner`: they lie inside a block. `frozen` says why a group can never be
    reduced, and is empty where it can.
    """

    name: str
    size: int
    prunable: bool = False
    frozen: str = ""

    @property
    def floor(self) -> int:
        """Fewest channels the group may keep in the search space `inner`."""
        return min(self.size, FLOOR_CHANNELS) if self.prunable else self.size


@dataclass(frozen=True)
class Axis:
    """A stretch of a tensor dimension that runs over a channel group, `spread` consecutive entries per channel."""

    group: str
    spread: int = 1


# What one dimension of a tensor runs over: stretches one after the other, or nothing where its size is fixed.
Dimension: TypeAlias = tuple[Axis, ...]


def total(entries: "Entries", sizes: Mapping[str, int]) -> int:
    """How many entries there are in a network with these sizes."""
    return sum(sizes[group] * number if group else number for group, number in entries)


def length(dimension: Dimension, sizes: Mapping[str, int]) -> int:
    """Entries of a dimension that runs over channel groups of these sizes."""
    return sum(sizes[axis.group] * axis.spread for axis in dimension)


@dataclass(frozen=True)
class Tensor:
    """One tensor of the state dict: its shape in the full network and what its dimensions run over.

    `block` is the block that may vanish together with the tensor, or "".
    """

    name: str
    shape: tuple[int, ...]
    dimensions: tuple[Dimension, ...]
    trainable: bool
    floating: bool
    block: str = ""

    def shape_at(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Its shape in a network with `sizes` channels per group."""
        pairs = zip(self.shape, self.dimensions, strict=True)
        return tuple(length(dimension, sizes) if dimension else size for size, dimension in pairs)


@dataclass(frozen=True)
class Layer:
    """One module with weights.

    `kind` is conv, depthwise, grouped, linear, batch_norm or other (whose weights are carried along); `source` and
    `target` are what its input's and output's channels run over; `kernel` is a convolution's; `positions` the number
    of output positions H*W, over all calls; `fan_in` the fixed number of channels that each output of a grouped or
    depthwise convolution reads; `fixed_macs` what a module needs beside that, and all that one of kind other does;
    `fixed_width` the channels of an input whose `source` is not known, and which therefore keeps them all. `norm_of`
    is, for a batch norm, the convolution or linear layer whose output it alone reads.
    """

    name: str
    kind: str
    source: Dimension
    target: Dimension
    kernel: tuple[int, ...] = ()
    positions: int = 1
    fan_in: int = 0
    bias: bool = False
    fixed_macs: int = 0
    norm_of: str = ""
    block: str = ""
    fixed_width: int = 0

    @property
    def mixes(self) -> bool:
        """Whether every output reads every input channel, so that a gate on an input folds into the weights."""
        return self.kind in ("conv", "linear")

    def inputs(self, sizes: Mapping[str, int]) -> int:
        """Channels or features that it is given."""
        return length(self.source, sizes) or self.fixed_width

    def macs(self, sizes: Mapping[str, int]) -> int:
        """Multiply-accumulates for one image; batch norm counts none."""
        if self.kind in ("batch_norm", "other"):
            return self.fixed_macs
        width = self.fan_in or self.inputs(sizes)
        return width * self.outputs(sizes) * math.prod(self.kernel) * self.positions + self.fixed_macs

    def outputs(self, sizes: Mapping[str, int]) -> int:
        """Channels or features that it puts out."""
        return length(self.target, sizes)


def work_kind(kind: str, kernel: tuple[int, ...]) -> str:
    """A layer's kind among `common.rates.KINDS`: a convolution of single pixels is pointwise."""
    return "pointwise" if kind == "conv" and set(kernel) == {1} else kind


@dataclass(frozen=True)
class Block:
    """A submodule added to its own input, so that it may vanish whole and leave the input as it is.

    `scale` is the layer at the end of its branch, which a factor on the branch folds into; `groups` are the channel
    groups that live inside it.
    """

    name: str
    scale: str
    groups: tuple[str, ...] = ()


def block_of(path: str, blocks: Sequence[Block]) -> str:
    """The name of the first of the blocks that the module `path` is or lies in; "" if there is none."""
    return next((block.name for block in blocks if f"{path}.".startswith(f"{block.name}.")), "")


@dataclass(frozen=True)
class GatePoint:
    """Where a gate may sit: before the layer `reader`, which reads the gated channels.

    `constant_path` is set where a channel gated to zero still leaves a constant behind: the batch norm and the
    convolution that the constant passes through and the batch norm that it ends in.
    """

    group: str
    reader: str
    constant_path: tuple[str, str, str] | None = None


# How many entries something has: (group, entries per channel) pairs, several where channels were joined; "" stands for
# a fixed number.
Entries: TypeAlias = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Work:
    """One operation, of a kind of `common.rates.KINDS`, and the activations it reads and writes for one image."""

    kind: str
    values: tuple[Entries, ...]
    block: str = ""


@dataclass(frozen=True)
class Saved:
    """A tensor that the backward pass needs of the forward pass: its entries, and the bytes of one.

    `per_image` says whether it is there once for every image of a batch, or once. It is kept while the block that makes
    it is there ("" for none), and if for one of `wanted` the first block is there and all the others have vanished.
    """

    entries: Entries
    entry_bytes: int
    per_image: bool
    maker: str
    wanted: tuple[tuple[str, tuple[str, ...]], ...]

    def there(self, sizes: Mapping[str, int]) -> bool:
        """Whether a network with these sizes keeps it."""
        return is_there(self.maker, sizes) and any(
            is_there(block, sizes) and not any(is_there(other, sizes) for other in gone) for block, gone in self.wanted
        )


@dataclass(frozen=True)
class Step:
    """The activations alive while one operation of the module `module` runs, for one image."""

    module: str
    live: tuple[Entries, ...]
    block: str = ""

    def elements(self, sizes: Mapping[str, int]) -> list[int]:
        """Entries of each activation."""
        return [total(one, sizes) for one in self.live]

    def entries(self, group: str) -> int:
        """How many entries one channel of the group has in all that is alive."""
        return sum(entries for one in self.live for name, entries in one if name == group)


@dataclass(frozen=True)
class Description:
    """Groups in the order in which they appear, layers and steps in execution order, tensors in state-dict order.

    `depthwise_gates` are the published program's places for a gate, by group: before the depthwise convolution.
    `work` are the operations of one forward pass, and `watch` finds out what training saves (see `saved`).
    `classes` is the number of logits.
    `sizes` given to the methods are channels per group; a block's name may be among them with 0, if it has vanished.
    """

    groups: tuple[ChannelGroup, ...]
    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    blocks: tuple[Block, ...]
    depthwise_gates: Mapping[str, GatePoint]
    classes: int
    work: tuple[Work, ...] = ()
    watch: Callable[[], tuple[Saved, ...]] = field(default=tuple, compare=False, repr=False)

    @cached_property
    def saved(self) -> tuple[Saved, ...]:
        """What the backward pass needs of the forward pass beside parameters; derived when it is first asked for."""
        return self.watch()

    @cached_property
    def full_sizes(self) -> dict[str, int]:
        """Channels of every group in the base network."""
        return {group.name: group.size for group in self.groups}

    @cached_property
    def floor_sizes(self) -> dict[str, int]:
        """Channels of every group in the smallest architecture of the search space `inner`."""
        return {group.name: group.floor for group in self.groups}

    @cached_property
    def prunable(self) -> tuple[ChannelGroup, ...]:
        """The groups of the search space `inner`."""
        return tuple(group for group in self.groups if group.prunable)

    @cached_property
    def reducible(self) -> tuple[ChannelGroup, ...]:
        """The groups that may be reduced at all."""
        return tuple(group for group in self.groups if not group.frozen)

    @cached_property
    def tensor_axes(self) -> dict[str, tuple[Dimension, ...]]:
        """Every tensor of the state dict, in order, with what its dimensions run over."""
        return {tensor.name: tensor.dimensions for tensor in self.tensors}

    @cached_property
    def tensor_by_name(self) -> dict[str, Tensor]:
        """Tensors by their name in the state dict."""
        return {tensor.name: tensor for tensor in self.tensors}

    @cached_property
    def layer_by_name(self) -> dict[str, Layer]:
        """Layers by module path."""
        return {layer.name: layer for layer in self.layers}

    @cached_property
    def block_by_name(self) -> dict[str, Block]:
        """Blocks that may vanish by module path."""
        return {block.name: block for block in self.blocks}

    def readers(self, group: str) -> tuple[Layer, ...]:
        """The layers that mix the channels of a group into theirs, in execution order."""
        found = (layer for layer in self.layers if layer.mixes)
        return tuple(layer for layer in found if any(axis.group == group for axis in layer.source))

    def costs(self, sizes: Mapping[str, int]) -> Costs:
        """What a network with `sizes` channels per group needs, exactly, by counting.

        MACs are the multiply-accumulates of convolution and linear layers for one image. Peak memory is the largest sum
        of live activations over the execution order: inputs and outputs of the running layer and a held residual, at
        batch 1 in float32; element-wise layers work in place where nothing else reads their input.
        """
        peak = max((total(entries, sizes) for block, entries in self._peaks if is_there(block, sizes)), default=0)
        macs, params = sum_of(self._macs, sizes), sum_of(self._params, sizes)
        return Costs(macs, params, BYTES_PER_VALUE * peak, _Reduced(self, dict(sizes)))

    def training_memory_bytes(self, sizes: Mapping[str, int], training: LocalTraining) -> int:
        """Bytes of weights, gradients, what the optimizer keeps, and of all that the backward pass needs.

        What autograd keeps of the forward pass is counted once per storage, in float32, with cross-entropy as the loss,
        for the largest batch that a device can have: the last one may take in a few images more than the batch size.
        """
        state = sum_of(self._state_bytes, sizes) + BYTES_PER_VALUE * (1 + training.kept) * sum_of(self._params, sizes)
        if training.kept > 1:  # Adam also counts its steps, for each tensor in a number of its own
            state += BYTES_PER_VALUE * sum(one.trainable and is_there(one.block, sizes) for one in self.tensors)
        saved = [one.entry_bytes * total(one.entries, sizes) for one in self.saved if one.there(sizes)]
        largest = largest_batch(training.batch_size)
        images = [largest if one.per_image else 1 for one in self.saved if one.there(sizes)]
        return state + sum(each * times for each, times in zip(saved, images, strict=True))

    def units_of_work(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Units of each of `common.rates.COUNTED` for one image."""
        return tuple(sum_of(terms, sizes) for terms in self._work)

    @cached_property
    def _peaks(self) -> tuple[tuple[str, Entries], ...]:
        """The sums of live elements, with their blocks, that are the largest at some sizes; no other step matters."""
        sums = {}
        for step in self.steps:
            counted: Counter[str] = Counter()
            for group, number in chain.from_iterable(step.live):
                counted[group] += number
            sums[step.block, tuple(sorted(counted.items()))] = counted
        return tuple(
            (block, entries)
            for (block, entries), counted in sums.items()
            if not any(
                other is not counted and above in ("", block) and counted <= other for (above, _), other in sums.items()
            )
        )

    @cached_property
    def _macs(self) -> tuple[Term, ...]:
        return terms_of(mac_terms(self.layers))

    @cached_property
    def _params(self) -> tuple[Term, ...]:
        return terms_of(entry_terms((tensor, 1) for tensor in self.tensors if tensor.trainable))

    @cached_property
    def _state_bytes(self) -> tuple[Term, ...]:
        """Of all weights and statistics; what is no float, torch keeps in 64 bits."""
        return terms_of(entry_terms((one, BYTES_PER_VALUE if one.floating else 8) for one in self.tensors))

    @cached_property
    def _work(self) -> tuple[tuple[Term, ...], ...]:
        counted: dict[tuple[str, str], Counted] = {key: Counter() for key in COUNTED}
        for layer in self.layers:
            counted[work_kind(layer.kind, layer.kernel), "mac"].update(mac_terms([layer]))
        for one in self.work:
            counted[one.kind, "call"][(), one.block] += 1
            for group, entries in chain.from_iterable(one.values):
                counted[one.kind, "value"][(group,) if group else (), one.block] += entries
        return tuple(terms_of(counted[key]) for key in COUNTED)

    def live_elements(self, sizes: Mapping[str, int]) -> list[int]:
        """Elements alive at each step of the forward pass, for one image; 0 in a block that vanished."""
        return [sum(step.elements(sizes)) if is_there(step.block, sizes) else 0 for step in self.steps]

    def layout(self, sizes: Mapping[str, int]) -> Layout:
        """The layout of the state dict of a network with `sizes` channels per group."""
        held = [tensor for tensor in self.tensors if tensor.floating and is_there(tensor.block, sizes)]
        return Layout(tuple(tensor.name for tensor in held), tuple(tensor.shape_at(sizes) for tensor in held))


@dataclass(frozen=True)
class _Reduced:
    """A network with `sizes` channels per group, for what is counted only when it is asked for."""

    description: Description
    sizes: Mapping[str, int]

    def training_memory_bytes(self, training: LocalTraining) -> int:
        return self.description.training_memory_bytes(self.sizes, training)

    def work(self) -> tuple[int, ...]:
        return self.description.units_of_work(self.sizes)
