"""Which channels belong together: a walk over a trace that gives every tensor dimension what it runs over.

Each convolution or linear layer makes a new *run* of channels. Whatever needs two runs to have the same channels (an
addition, a depthwise convolution, a gate that is multiplied on) ties them, and tied runs are one channel group. What is
not understood freezes the runs it touches, with the reason.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import nn

from common.models.trace import BATCH, Operation, Trace, Value

# Entry by entry, though torch does not tag them so.
COPIES = {"clone", "detach", "alias", "lift_fresh", "copy_"}
# What dropout is made of, in training.
NOISE = {"empty_like", "zeros_like", "ones_like", "rand_like", "bernoulli", "bernoulli_", "native_dropout"}
POINTWISE = {*COPIES, *NOISE, "hardswish", "hardswish_", "mish_", "threshold_", "_prelu_kernel", "log_sigmoid_forward"}
KEEP_CHANNELS = ("_pool1d", "_pool2d", "_pool3d", "_pad1d", "_pad2d", "_pad3d", "upsample_")
# A stretch of a dimension: a run, and how many consecutive entries each of its channels has there.
Stretches: TypeAlias = "tuple[tuple[Run, int], ...]"


@dataclass(eq=False)
class Run:
    """`features` channels made by `maker`; tied runs share a root, whose `channels` can go one by one.

    `channels` divides the features of every run of the root: a grouped convolution loses whole groups.
    """

    features: int
    maker: str
    channels: int = 0
    frozen: str = ""
    parent: "Run | None" = None

    def root(self) -> "Run":
        """The run that stands for all that are tied to this one."""
        found = self
        while found.parent is not None:
            found = found.parent
        return found

    def freeze(self, reason: str) -> None:
        """None of its channels may go; the first reason stays."""
        root = self.root()
        root.frozen = root.frozen or reason


@dataclass(eq=False)
class Use:
    """A convolution, linear layer or batch norm at work."""

    path: str
    kind: str
    source: Stretches
    target: Stretches
    operation: Operation
    data: Value
    kernel: tuple[int, ...] = ()
    fan_in: int = 0
    bias: bool = False
    width: int = 0  # channels or features of its input, known also where `source` is not


@dataclass
class Ties:
    """What the walk found: runs in order of appearance, and the dimensions of every value and parameter."""

    trace: Trace
    runs: list[Run] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    dimensions: dict[Value, list[Stretches]] = field(default_factory=dict)
    _open: set[Value] = field(default_factory=set)  # parameters that no operation has used yet

    @classmethod
    def of(cls, trace: Trace) -> "Ties":
        """Walk over the trace."""
        ties = cls(trace)
        ties._open = set(trace.parameters.values())
        image = ties._run(trace.image.shape[1], "input")
        image.freeze("it is the image")
        ties.dimensions[trace.image] = [(), ((image, 1),), *[()] * (len(trace.image.shape) - 2)]
        for operation in trace.operations:
            ties._step(operation)
        for stretches in ties.of_value(trace.logits):
            for run, _ in stretches:
                run.freeze("it is the result")
        held = trace.module.state_dict()
        for name, value in trace.parameters.items():
            if name not in held:  # and which of its entries belong to the kept channels, nobody could say
                for stretches in ties.of_value(value):
                    ties._freeze_all(stretches, f"{name} runs over it, which no state dict holds")
        return ties

    def of_value(self, value: Value) -> list[Stretches]:
        """What each dimension of a value runs over; nothing where its size is fixed."""
        return self.dimensions.get(value) or [() for _ in value.shape]

    def _run(self, features: int, maker: str) -> Run:
        run = Run(features, maker, features)
        self.runs.append(run)
        return run

    def _step(self, operation: Operation) -> None:
        name, module = operation.name, self._module(operation.path)
        if name == "convolution" and isinstance(module, nn.modules.conv._ConvNd):
            if self._convolution(operation, module):
                return
        elif name in ("addmm", "mm") and isinstance(module, nn.Linear):
            if self._linear(operation):
                return
        elif "batch_norm" in name and isinstance(module, nn.modules.batchnorm._BatchNorm):
            self._batch_norm(operation)
            return
        elif operation.pointwise or name in POINTWISE:
            self._pointwise(operation)
            return
        elif any(kind in name for kind in KEEP_CHANNELS) or name == "constant_pad_nd":
            if self._keep_channels(operation):
                return
        elif self._shape(operation):
            return
        self._freeze(operation)

    def _module(self, path: str) -> nn.Module:
        return self.trace.module.get_submodule(path)

    # Layers with weights

    def _convolution(self, operation: Operation, module: nn.Module) -> bool:
        data, weight, bias, *_, transposed, _, groups = operation.arguments
        if transposed or not self._owned(weight, operation.path):
            return False
        source = self.of_value(data)[1]
        target = self._run(operation.output.shape[1], operation.path)
        fan_in = 0
        if groups > 1:
            fan_in = weight.shape[1]
            if len(source) == 1:
                self._tie(source[0][0], target, groups)
            else:
                self._freeze_all(source, f"{operation.path} filters several groups of channels at once")
                target.freeze(f"{operation.path} filters several groups of channels at once")
        made: Stretches = ((target, 1),)
        spatial: list[Stretches] = [() for _ in weight.shape[2:]]
        self._assign(weight, [made, () if fan_in else source, *spatial])
        if bias is not None:
            self._assign(bias, [made])
        self.dimensions[operation.output] = [(), made, *[() for _ in operation.output.shape[2:]]]
        kind = "conv" if groups == 1 else "depthwise" if fan_in == 1 else "grouped"
        kernel = tuple(weight.shape[2:])
        width = data.shape[1]
        self.uses.append(
            Use(operation.path, kind, source, made, operation, data, kernel, fan_in, bias is not None, width)
        )
        return True

    def _linear(self, operation: Operation) -> bool:
        *first, data, turned = operation.arguments
        bias = first[0] if first else None
        weight = turned.maker.inputs[0] if turned.maker is not None and turned.maker.name == "t" else turned
        if not self._owned(weight, operation.path):
            return False
        source = self.of_value(data)[1]
        made: Stretches = ((self._run(operation.output.shape[1], operation.path), 1),)
        self._assign(weight, [made, source])
        if bias is not None:
            self._assign(bias, [made])
        self.dimensions[operation.output] = [(), made]
        width = data.shape[1]
        self.uses.append(Use(operation.path, "linear", source, made, operation, data, (), 0, bias is not None, width))
        return True

    def _batch_norm(self, operation: Operation) -> None:
        data = operation.arguments[0]
        dimensions = self.of_value(data)
        for tensor in operation.arguments[1:5]:
            if isinstance(tensor, Value):
                self._assign(tensor, [dimensions[1]])
        self.dimensions[operation.output] = dimensions
        source = dimensions[1]
        self.uses.append(Use(operation.path, "batch_norm", source, source, operation, data))

    def _owned(self, weight: Value, path: str) -> bool:
        """Whether it is the one weight of the layer `path`; what else the layer multiplies with is not understood."""
        return weight.parameter == (f"{path}.weight" if path else "weight")

    def _assign(self, parameter: Value, dimensions: list[Stretches]) -> None:
        """A parameter takes the dimensions that its first use gives it, and ties what a second one would change."""
        if parameter in self._open:
            self._open.discard(parameter)
            self.dimensions[parameter] = dimensions
            return
        for size, mine, theirs in zip(parameter.shape, self.of_value(parameter), dimensions, strict=True):
            self._match(size, mine, size, theirs, f"{parameter.parameter} is used twice")

    # Everything else

    def _pointwise(self, operation: Operation) -> None:
        rank = len(operation.output.shape)
        sizes = [1] * rank
        result: list[Stretches] = [()] * rank
        reason = f"{operation.name} in {operation.path or 'the network'} joins it with something of fixed size"
        fresh = [one for one in operation.inputs if one in self._open]
        for operand in operation.inputs:
            if operand in fresh:
                continue
            missing = rank - len(operand.shape)
            for place, (size, stretches) in enumerate(zip(operand.shape, self.of_value(operand), strict=True), missing):
                found = self._match(sizes[place], result[place], size, stretches, reason)
                sizes[place], result[place] = found
        for operand in fresh:  # a scale or shift with weights of its own takes the dimensions of the data
            missing = rank - len(operand.shape)
            wide = [size > 1 for size in operand.shape]
            self._assign(operand, [one if is_wide else () for one, is_wide in zip(result[missing:], wide, strict=True)])
        for output in operation.outputs:
            if len(output.shape) == rank:
                self.dimensions[output] = list(result)

    def _match(self, size: int, mine: Stretches, other: int, theirs: Stretches, reason: str) -> tuple[int, Stretches]:
        """Two dimensions that are combined entry by entry: size and stretches of the result."""
        if other == 1 and not theirs:
            return size, mine
        if size == 1 and not mine:
            return other, theirs
        if [spread for _, spread in mine] == [spread for _, spread in theirs] and all(
            a.features == b.features for (a, _), (b, _) in zip(mine, theirs, strict=True)
        ):
            for (a, _), (b, _) in zip(mine, theirs, strict=True):
                self._tie(a, b, a.features)
        else:
            self._freeze_all((*mine, *theirs), reason)
        return size, mine or theirs

    def _keep_channels(self, operation: Operation) -> bool:
        data, output = operation.inputs[0], operation.output
        if data.shape[:2] != output.shape[:2] or len(data.shape) != len(output.shape):
            return False
        dimensions = self.of_value(data)
        if any(dimensions[2:]):
            return False
        for one in operation.outputs:
            self.dimensions[one] = dimensions
        return True

    def _shape(self, operation: Operation) -> bool:
        """Operations that move, join or drop dimensions; False where channels would be torn apart."""
        name, arguments, output = operation.name, operation.arguments, operation.output
        data = operation.inputs[0]
        wide = [place for place, size in enumerate(data.shape) if size > 1]
        if data in self._open and name != "t" and len(wide) == 1:  # a bare parameter, one entry per channel
            made: Stretches = ((self._run(data.shape[wide[0]], data.parameter), 1),)
            self._assign(data, [made if place == wide[0] else () for place in range(len(data.shape))])
        dimensions = self.of_value(data)
        if name in ("view", "_unsafe_view", "reshape", "_reshape_copy", "squeeze", "unsqueeze", "flatten"):
            found = _regrouped(data.shape, dimensions, output.shape)
            if found is None:
                return False
            self.dimensions[output] = found
        elif name in ("permute", "transpose", "t"):
            self.dimensions[output] = [dimensions[place] for place in _order(name, arguments, len(data.shape))]
        elif name == "expand":
            missing = len(output.shape) - len(data.shape)
            self.dimensions[output] = [*[()] * missing, *dimensions]
        elif name in ("mean", "sum", "amax", "amin"):
            places = arguments[1] if len(arguments) > 1 and arguments[1] else range(len(data.shape))
            gone = {place % len(data.shape) for place in ([places] if isinstance(places, int) else places)}
            if any(dimensions[place] for place in gone):
                return False
            keeps = len(output.shape) == len(data.shape)
            self.dimensions[output] = [
                stretches for place, stretches in enumerate(dimensions) if keeps or place not in gone
            ]
        elif name in ("slice", "select", "split", "split_with_sizes", "unbind"):
            places = {"split": 2, "split_with_sizes": 2, "unbind": 1}.get(name, 1)
            place = int(arguments[places]) % len(data.shape) if len(arguments) > places else 0
            whole = len(output.shape) == len(data.shape) and output.shape[place] == data.shape[place]
            if dimensions[place] and not whole:
                return False
            drops = len(output.shape) < len(data.shape)
            for one in operation.outputs:
                self.dimensions[one] = [
                    stretches for number, stretches in enumerate(dimensions) if not (drops and number == place)
                ]
        elif name == "cat":
            return self._cat(operation)
        else:
            return False
        return True

    def _cat(self, operation: Operation) -> bool:
        rank = len(operation.output.shape)
        along = int(operation.arguments[1]) % rank if len(operation.arguments) > 1 else 0
        joined: list[Stretches] = [self.of_value(one)[along] for one in operation.inputs]
        if any(joined) and not all(joined):
            return False
        result: list[Stretches] = []
        for place in range(rank):
            if place == along:
                result.append(tuple(stretch for stretches in joined for stretch in stretches))
                continue
            size = 1
            found: Stretches = ()
            for one in operation.inputs:
                theirs = self.of_value(one)[place]
                size, found = self._match(size, found, one.shape[place], theirs, f"{operation.path} joins images")
            result.append(found)
        self.dimensions[operation.output] = result
        return True

    # Tying and freezing

    def _tie(self, a: Run, b: Run, channels: int) -> None:
        """The two runs lose channels together, in `channels` equal parts or a divisor of it."""
        first, second = a.root(), b.root()
        common = math.gcd(first.channels, second.channels, channels)
        if first is not second:
            if self.runs.index(first) > self.runs.index(second):
                first, second = second, first
            second.parent = first
            first.frozen = first.frozen or second.frozen
        first.channels = common

    def _freeze_all(self, stretches: Iterable[tuple[Run, int]], reason: str) -> None:
        for run, _ in stretches:
            run.freeze(reason)

    def _freeze(self, operation: Operation) -> None:
        """What is not understood: the channels that go in stay, and those that come out are nobody's."""
        where = f"in {operation.path}" if operation.path else "in the network's own forward"
        reason = f"{operation.name} {where} is not understood"
        for one in operation.inputs:
            self._open.discard(one)
            for stretches in self.of_value(one):
                self._freeze_all(stretches, reason)
        if not any(self.of_value(one)[1:2] for one in operation.inputs):
            return
        for output in operation.outputs:
            if len(output.shape) > 1 and output.shape[0] == BATCH and output.floating and output.shape[1] > 0:
                run = self._run(output.shape[1], f"{operation.path or operation.name}.{len(self.runs)}")
                run.freeze(reason)
                self.dimensions[output] = [(), ((run, 1),), *[() for _ in output.shape[2:]]]


def _order(name: str, arguments: tuple[object, ...], rank: int) -> list[int]:
    order = list(range(rank))
    if name == "permute":
        return [int(place) % rank for place in arguments[1]]  # type: ignore[attr-defined]
    first, second = (0, rank - 1) if name == "t" else (int(arguments[1]) % rank, int(arguments[2]) % rank)  # type: ignore[call-overload]
    order[first], order[second] = order[second], order[first]
    return order


def _regrouped(before: tuple[int, ...], dimensions: list[Stretches], after: tuple[int, ...]) -> list[Stretches] | None:
    """What the dimensions run over after a reshape; None where it would tear a channel dimension apart."""
    result: list[Stretches] = []
    left = right = 0
    while left < len(before) or right < len(after):
        old, new = list(before[left : left + 1]), list(after[right : right + 1])
        while math.prod(old) != math.prod(new):
            if math.prod(old) < math.prod(new):
                old.append(before[left + len(old)])
            else:
                new.append(after[right + len(new)])
        carried = [place for place in range(len(old)) if dimensions[left + place]]
        made: list[Stretches] = [() for _ in new]
        if carried:
            place, wide = carried[0], [number for number, size in enumerate(new) if size != 1]
            if len(carried) > 1 or math.prod(old[:place]) != 1 or len(wide) > 1 or not new:
                return None
            behind = math.prod(old[place + 1 :])
            stretches = tuple((run, spread * behind) for run, spread in dimensions[left + place])
            made[wide[0] if wide else 0] = stretches
        result += made
        left, right = left + len(old), right + len(new)
    return result
