"""What a network does, recorded while it does it: one image pair through the module, without storage.

The module runs on torch's meta device, below autograd, so that every operation appears as the few
primitive ones it is made of (`torch.export` records the same ones), whatever Python stands in its `forward`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

MULTIPLY = ("convolution", "mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product_flash_attention")
BATCH = 2  # images per trace: one would be confused with the size-1 dimensions that broadcast


@dataclass(eq=False)
class Value:
    """A tensor at one moment: in-place operations make a new value of the same `storage`.

    `parameter` is its name in the module, for parameters and buffers; `maker` the operation that made it.
    """

    shape: tuple[int, ...]
    storage: int
    floating: bool
    parameter: str = ""
    maker: "Operation | None" = None
    readers: "list[Operation]" = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of entries."""
        total = 1
        for length in self.shape:
            total *= length
        return total


@dataclass(eq=False)
class Operation:
    """One primitive operation inside module `path`; `arguments` are its own with values in the place of tensors.

    Of an addition a + alpha b, `alpha` is the factor of its second input.
    """

    name: str
    path: str
    arguments: tuple[Any, ...]
    inputs: list[Value]
    outputs: list[Value]
    pointwise: bool
    macs: int
    alpha: float = 1.0

    @property
    def output(self) -> Value:
        """The first of its outputs."""
        return self.outputs[0]


@dataclass(eq=False)
class Call:
    """One call of the module `path` with the tensors it was given and the tensor it returned."""

    path: str
    inputs: list[Value]
    output: Value | None


@dataclass(frozen=True)
class Save:
    """Module `path` kept a tensor of this storage, `size` bytes large, for its backward pass."""

    path: str
    storage: int
    size: int


@dataclass
class Trace:
    """Everything that happened between the image and the logits; in training, up to the loss, and what was kept."""

    module: nn.Module
    image: Value
    logits: Value
    operations: list[Operation]
    calls: dict[str, list[Call]]
    parameters: dict[str, Value]
    saves: list[Save] = field(default_factory=list)


def record(module: nn.Module, input_shape: tuple[int, ...], training: bool = False) -> Trace:
    """Run the module, which lies on the meta device, once; raises whatever its forward raises.

    In `training` it runs in training mode, with gradients, and cross-entropy follows.
    """
    recorder = _Recorder()
    module.train(training)
    parameters = {}
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        parameters[name] = recorder.value(tensor, parameter=name)
    image = torch.zeros(BATCH, *input_shape, device="meta")
    start = recorder.value(image)
    keeping = saved_tensors_hooks(recorder.keep, lambda tensor: tensor)
    with torch.set_grad_enabled(training), _paths(module, recorder), recorder, keeping:
        logits = module(image)
        if training:
            functional.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.int64, device="meta"))
    module.eval()
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"its forward returns {type(logits).__name__}, not a tensor of logits")
    if logits.dim() != 2 or len(logits) != BATCH:
        raise TypeError(f"its forward returns shape {tuple(logits.shape)} for {BATCH} images, not (images, classes)")
    return Trace(module, start, recorder.value(logits), recorder.operations, recorder.calls, parameters, recorder.saves)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every primitive operation and the value it makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.calls: dict[str, list[Call]] = {}
        self.path: list[str] = [""]
        self._values: dict[int, Value] = {}
        self.saves: list[Save] = []
        self._alive: list[torch.Tensor] = []  # so that no two tensors of the trace ever have one id

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to hide the recorder from torch's compiler would import the compiler, which takes over a second."""
        return False

    def value(self, tensor: torch.Tensor, parameter: str = "") -> Value:
        """The present value of a tensor."""
        found = self._values.get(id(tensor))
        return self._new(tensor, parameter) if found is None else found

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Note that autograd keeps the tensor."""
        self._alive.append(tensor)
        storage = tensor.untyped_storage()
        self.saves.append(Save(self.path[-1], storage._cdata, storage.nbytes()))
        return tensor

    def _new(self, tensor: torch.Tensor, parameter: str = "") -> Value:
        self._alive.append(tensor)
        storage = tensor.untyped_storage()._cdata
        made = Value(tuple(tensor.shape), storage, tensor.is_floating_point(), parameter)
        self._values[id(tensor)] = made
        return made

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        arguments = tree_map(lambda one: self.value(one) if isinstance(one, torch.Tensor) else one, args)
        inputs = [one for one in tree_flatten((arguments, dict(kwargs or {})))[0] if isinstance(one, Value)]
        result = _quickly(func, args) if func in _QUICK and not kwargs else func(*args, **(kwargs or {}))
        outputs = [self._new(one) for one in tree_flatten(result)[0] if isinstance(one, torch.Tensor)]
        if inputs and outputs:
            name = func._schema.name.partition("::")[2]
            pointwise = torch.Tag.pointwise in func.tags
            macs = _macs(func, args, kwargs or {}, result) if name in MULTIPLY else 0
            alpha = (kwargs or {}).get("alpha", 1.0)
            operation = Operation(name, self.path[-1], arguments, inputs, outputs, pointwise, macs, alpha)
            self.operations.append(operation)
            for one in inputs:
                one.readers.append(operation)
            for one in outputs:
                one.maker = operation
        return result


# Torch's own versions of these, for tensors without storage, would take most of the time of a trace, or import its
# compiler, which takes longer still.
_QUICK = {
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.add.Tensor,
    torch.ops.aten.mul.Tensor,
    torch.ops.aten.mean.dim,
    torch.ops.aten.relu.default,
    torch.ops.aten._log_softmax.default,
    torch.ops.aten.nll_loss_forward.default,
    torch.ops.aten.convolution.default,
}


def _quickly(func: Any, args: Any) -> Any:
    """What `func` returns, without what is in it."""
    aten = torch.ops.aten
    if func is aten.convolution.default:
        return _convolved(func, args)
    if func is aten.native_batch_norm.default:
        statistics = args[0].shape[1] if args[5] else 0  # of the batch, in training only
        return _like(args[0]), *(torch.empty(statistics, device="meta") for _ in range(2))
    if func is aten.nll_loss_forward.default:
        return torch.empty((), device="meta"), torch.empty((), device="meta")
    if func in (aten.relu.default, aten._log_softmax.default):
        return _like(args[0])
    if func is aten.mean.dim:
        image, dims, *keep = args
        gone = {dim % image.dim() for dim in dims}
        kept = [
            1 if place in gone else size for place, size in enumerate(image.shape) if place not in gone or any(keep)
        ]
        return torch.empty(kept, device="meta")
    if func in (aten.addmm.default, aten.mm.default):
        return torch.empty(args[-2].shape[0], args[-1].shape[1], device="meta")
    shapes = [one.shape for one in args[:2] if isinstance(one, torch.Tensor)]
    kind = torch.result_type(*args[:2])
    return torch.empty(np.broadcast_shapes(*shapes), dtype=kind, device="meta")


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _convolved(func: Any, args: Any) -> Any:
    """The output of a convolution; where it is not plain, or does not fit its input, torch decides."""
    image, weight, _, stride, padding, dilation, transposed, _, groups = args
    axes = zip(image.shape[2:], weight.shape[2:], stride, padding, dilation, strict=False)
    sizes = [(size + 2 * pad - spread * (kernel - 1) - 1) // step + 1 for size, kernel, step, pad, spread in axes]
    fits = image.dim() == weight.dim() == 2 + len(sizes) and image.shape[1] == groups * weight.shape[1]
    if transposed or not fits or min(sizes) < 1:
        return func(*args)
    return torch.empty(len(image), len(weight), *sizes, device="meta")


def _macs(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Multiply-accumulates for one image, of what is rare by torch's own counter; 0 for what it does not count."""
    aten = torch.ops.aten
    if func in (aten.addmm.default, aten.mm.default):
        return int(result.numel()) * int(args[-1].shape[0]) // BATCH
    if func is aten.convolution.default and not args[6]:
        return int(result.numel()) * int(args[1][0].numel()) // BATCH
    from torch.utils.flop_counter import flop_registry  # takes 0.3 s

    count = flop_registry.get(func.overloadpacket)
    return 0 if count is None else int(count(*args, **kwargs, out_val=result)) // (2 * BATCH)


@contextmanager
def _paths(module: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """While it is open, the recorder knows which submodule runs."""
    handles = []
    waiting: list[list[Value]] = []
    for path, one in module.named_modules():

        def enter(_: nn.Module, inputs: Any, path: str = path) -> None:
            recorder.path.append(path)
            waiting.append([recorder.value(one) for one in tree_flatten(inputs)[0] if isinstance(one, torch.Tensor)])

        def leave(_: nn.Module, __: Any, output: Any, path: str = path) -> None:
            recorder.path.pop()
            made = recorder.value(output) if isinstance(output, torch.Tensor) else None
            recorder.calls.setdefault(path, []).append(Call(path, waiting.pop(), made))

        handles += [one.register_forward_pre_hook(enter), one.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
