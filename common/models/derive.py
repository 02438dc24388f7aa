"""The description of a network, derived from the module itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, takewhile

from torch import nn

from common.models.description import (
    Axis,
    Block,
    ChannelGroup,
    Description,
    Dimension,
    GatePoint,
    Layer,
    Step,
    Tensor,
    Work,
    block_of,
    work_kind,
)
from common.models.liveness import moments
from common.models.saving import saved_in_training
from common.models.ties import Run, Stretches, Ties, Use
from common.models.trace import BATCH, Operation, Trace, Value, record

RELU = ("relu", "relu_")


def derive(module: nn.Module, input_shape: tuple[int, int, int]) -> Description:
    """The description of `module`, which lies on the meta device and takes images of `input_shape` (C, H, W).

    A module may have an attribute `group_names`, which maps a layer to the name of the channel group that it makes;
    other groups are called like the first layer that makes them. Raises whatever the module's forward raises.
    """
    trace = record(module, input_shape)
    return _Derivation(trace, Ties.of(trace)).description()


@dataclass
class _Derivation:
    """A trace on its way to a description."""

    trace: Trace
    ties: Ties
    names: dict[Run, str] = field(default_factory=dict)  # of the runs that stand for a group
    blocks: list[Block] = field(default_factory=list)

    def description(self) -> Description:
        """Everything put together."""
        self._freeze_what_no_gate_reaches()
        self._name_groups()
        self.blocks = list(self._removable_blocks())
        layers, tensors = self._layers(), tuple(self._tensors())
        inner = _inside_blocks(self.trace.module, layers)
        groups = tuple(
            ChannelGroup(name, run.channels, not run.frozen and name in inner, run.frozen)
            for run, name in self.names.items()
        )
        blocks = tuple(replace(block, groups=_groups_inside(block.name, tensors)) for block in self.blocks)
        classes = self.trace.logits.shape[-1]
        return Description(
            groups,
            layers,
            tensors,
            tuple(self._steps()),
            blocks,
            self._depthwise_gates(),
            classes,
            tuple(self._work()),
            partial(saved_in_training, self.trace.module, self.trace.image.shape[1:], tensors, blocks),
        )

    def _freeze_what_no_gate_reaches(self) -> None:
        read: set[Run] = set()
        for use in self.ties.uses:
            if use.kind not in ("conv", "linear"):
                continue
            place = -1 if use.kind == "linear" else 1
            for call in self.trace.calls[use.path]:
                given = self.ties.of_value(call.inputs[0])[place] if call.inputs else ()
                if _roots(given) != _roots(use.source):
                    for run, _ in use.source:
                        run.freeze(f"{use.path} changes its input before it reads it")
            read |= {run.root() for run, _ in use.source}
        for run in self.ties.runs:
            if run.root() not in read:
                run.freeze("no convolution or linear layer reads it")
            elif run.root().channels < 2:
                run.freeze("its channels are tied into one")

    def _name_groups(self) -> None:
        """Names for the groups that tensors of the state dict, the image or the result carry."""
        given = getattr(self.trace.module, "group_names", {})
        parameters = [self.ties.of_value(value) for value in self.trace.parameters.values()]
        ends = [self.ties.of_value(self.trace.image), self.ties.of_value(self.trace.logits)]
        carried = {run.root() for dimensions in parameters + ends for one in dimensions for run, _ in one}
        result = {run.root() for run, _ in ends[1][1]}
        for run in self.ties.runs:
            if run in carried and run.parent is None:
                name = "classes" if run in result else str(given.get(run.maker, run.maker))
                self.names[run] = name if name not in self.names.values() else f"{name}.{len(self.names)}"

    def _dimension(self, stretches: Stretches) -> Dimension:
        axes = []
        for run, spread in stretches:
            root = run.root()
            axes.append(Axis(self.names[root], spread * run.features // root.channels))
        return tuple(axes)

    # Layers and tensors

    def _layers(self) -> tuple[Layer, ...]:
        layers: dict[str, Layer] = {}
        used = {use.operation for use in self.ties.uses}
        for use in self.ties.uses:
            layer = self._layer(use)
            earlier = layers.get(use.path)
            layers[use.path] = replace(layer, positions=layer.positions + earlier.positions) if earlier else layer
        for operation in self.trace.operations:
            if operation.macs and operation not in used:
                self._add_other(layers, operation.path, operation.macs)
        for name in self.trace.module.state_dict():
            if name.rpartition(".")[0] not in layers:
                self._add_other(layers, name.rpartition(".")[0], 0)
        return tuple(layers.values())

    def _add_other(self, layers: dict[str, Layer], path: str, macs: int) -> None:
        known = layers.get(path) or Layer(path, "other", (), (), block=block_of(path, self.blocks))
        layers[path] = replace(known, fixed_macs=known.fixed_macs + macs)

    def _layer(self, use: Use) -> Layer:
        entries = use.operation.output.size // BATCH
        channels = sum(run.features * spread for run, spread in use.target) or use.operation.output.shape[1]
        return Layer(
            use.path,
            use.kind,
            self._dimension(use.source),
            self._dimension(use.target),
            use.kernel,
            entries // channels,
            use.fan_in,
            use.bias,
            norm_of=self._normed(use),
            block=block_of(use.path, self.blocks),
            fixed_width=0 if use.source else use.width,
        )

    def _normed(self, use: Use) -> str:
        """The layer whose output only this batch norm reads."""
        maker = self._use_of(use.data.maker)
        if use.kind != "batch_norm" or maker is None or maker.kind == "batch_norm" or len(use.data.readers) != 1:
            return ""
        once = all(len(self.trace.calls[path]) == 1 for path in (use.path, maker.path))
        return maker.path if once else ""

    def _use_of(self, operation: Operation | None) -> Use | None:
        return next((use for use in self.ties.uses if use.operation is operation), None)

    def _tensors(self) -> Iterator[Tensor]:
        trainable = dict(self.trace.module.named_parameters(remove_duplicate=False))
        for name, tensor in self.trace.module.state_dict(keep_vars=True).items():
            found = self.ties.of_value(self.trace.parameters[name])
            dimensions = tuple(self._dimension(stretches) for stretches in found)
            block = block_of(name.rpartition(".")[0], self.blocks)
            yield Tensor(name, tuple(tensor.shape), dimensions, name in trainable, tensor.is_floating_point(), block)

    # Memory

    def _steps(self) -> Iterator[Step]:
        for moment in moments(self.trace):
            path = moment.operation.path
            yield Step(path, tuple(self._alive(value) for value in moment.alive), block_of(path, self.blocks))

    def _alive(self, value: Value) -> tuple[tuple[str, int], ...]:
        """What a value holds for one image, as (group, entries per channel) pairs."""
        carrying = [place for place, one in enumerate(self.ties.of_value(value)) if one]
        entries = value.size // BATCH
        if len(carrying) == 1:
            stretches = self.ties.of_value(value)[carrying[0]]
            if all(run.root() in self.names for run, _ in stretches):
                others = entries // value.shape[carrying[0]]
                return tuple((axis.group, axis.spread * others) for axis in self._dimension(stretches))
        return (("", entries),)

    # Time

    def _work(self) -> Iterator[Work]:
        """Every operation that computes something from the image."""
        moving = {self.trace.image.storage}
        for operation in self.trace.operations:
            data = [one for one in operation.inputs if one.storage in moving]
            if not data or (
                all(one.storage in moving for one in operation.outputs) and not operation.name.endswith("_")
            ):
                continue  # of weights alone, or a view
            moving |= {one.storage for one in operation.outputs}
            use = self._use_of(operation)
            kind = work_kind(use.kind, use.kernel) if use is not None else "other"
            values = tuple(self._alive(one) for one in (*data, *operation.outputs) if one.size)
            yield Work(kind, values, block_of(operation.path, self.blocks))

    # Blocks

    def _removable_blocks(self) -> Iterator[Block]:
        """Submodules that add something to their only input, inner ones before those around them."""
        found: list[str] = []
        for path, calls in self.trace.calls.items():
            call = calls[0]
            if not path or len(calls) > 1 or len(call.inputs) != 1 or call.output is None:
                continue
            scale = self._end_of_branch(path, call.inputs[0], call.output)
            if scale and not any(one.startswith(f"{path}.") for one in found):
                found.append(path)
                yield Block(path, scale)

    def _end_of_branch(self, path: str, given: Value, made: Value) -> str:
        """The last layer of f where the module `path` computes given + f(given), perhaps with a ReLU after it."""
        operation = made.maker
        if operation is not None and operation.name in RELU and _not_negative(given):
            operation = operation.inputs[0].maker
        if operation is None or operation.name not in ("add", "add_") or len(operation.inputs) != 2:
            return ""
        if given not in operation.inputs or any(one.shape != given.shape for one in operation.inputs):
            return ""
        if operation.inputs[1] is given and operation.alpha != 1:
            return ""
        branch = operation.inputs[1 - operation.inputs.index(given)]
        last = self._use_of(branch.maker)
        if last is None or not last.path.startswith(f"{path}.") or branch.readers != [operation]:
            return ""
        foldable = len(self.trace.calls[last.path]) == 1 and f"{last.path}.weight" in self.trace.parameters
        return last.path if foldable else ""

    # Gates before the depthwise convolution, as published

    def _depthwise_gates(self) -> dict[str, GatePoint]:
        """Where one depthwise convolution alone reads a group, and one pointwise convolution what it makes."""
        gates = {}
        by_norm = {self._normed(use): use for use in self.ties.uses if self._normed(use)}
        for use in self.ties.uses:
            if use.kind != "depthwise" or use.path not in by_norm or len(use.source) != 1:
                continue
            norm = by_norm[use.path]
            relu = _only_reader(norm.operation.output)
            reader = self._use_of(_only_reader(relu.output)) if relu is not None and relu.name in RELU else None
            if reader is None or reader.kind != "conv" or reader.path not in by_norm or set(reader.kernel) != {1}:
                continue
            path = norm.path, reader.path, by_norm[reader.path].path
            if use.width != use.operation.output.shape[1] or not all(map(self._folds, (path[0], path[2]))):
                continue
            root = use.source[0][0].root()
            readers = {one.path for one in self.ties.uses if one.kind != "batch_norm" and root in _roots(one.source)}
            if readers != {use.path, reader.path}:
                continue
            name = self.names[root]
            gates[name] = GatePoint(name, use.path, path)
        return gates

    def _folds(self, norm: str) -> bool:
        """Whether the batch norm has the tensors that a constant is folded through."""
        needed = ("weight", "bias", "running_mean", "running_var")
        return all(f"{norm}.{one}" in self.trace.parameters for one in needed)


def _roots(stretches: Stretches) -> list[Run]:
    return [run.root() for run, _ in stretches]


def _only_reader(value: Value) -> Operation | None:
    return value.readers[0] if len(value.readers) == 1 else None


def _not_negative(value: Value) -> bool:
    maker = value.maker
    if maker is not None and "max_pool" in maker.name:
        maker = maker.inputs[0].maker
    return maker is not None and maker.name in RELU


def _groups_inside(block: str, tensors: tuple[Tensor, ...]) -> tuple[str, ...]:
    """The groups that only tensors of the block carry."""
    inside: dict[str, bool] = {}
    for tensor in tensors:
        for axis in chain.from_iterable(tensor.dimensions):
            inside[axis.group] = inside.get(axis.group, True) and tensor.block == block
    return tuple(group for group, only in inside.items() if only)


def _inside_blocks(network: nn.Module, layers: tuple[Layer, ...]) -> set[str]:
    """The groups that one block alone makes and reads; in a network without such blocks, all groups.

    A block is a submodule that is more than a container of others.
    """
    homes: dict[str, str] = {}
    for layer in layers:
        if layer.mixes:
            around = layer.name.rpartition(".")[0]
            for axis in (*layer.source, *layer.target):
                homes[axis.group] = _common(homes.get(axis.group, around), around)
    found = {group for group, home in homes.items() if _block_around(network, home)}
    return found or set(homes)


def _common(first: str, second: str) -> str:
    """The path that two module paths begin with."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return ".".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _block_around(network: nn.Module, path: str) -> str:
    """The innermost submodule at or above `path` that is no container; "" for the network itself."""
    while path and isinstance(network.get_submodule(path), nn.Sequential | nn.ModuleList | nn.ModuleDict):
        path = path.rpartition(".")[0]
    return path
