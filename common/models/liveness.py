"""Which tensors are alive at each step of the forward pass, from a trace: the peak memory in execution order.

Views share memory. An element-wise operation or a batch norm works in place where nothing else reads its input.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from common.models.trace import Operation, Trace, Value


@dataclass(frozen=True)
class Moment:
    """One operation that needs memory of its own, and the values alive while it runs: held, read, made."""

    operation: Operation
    alive: tuple[Value, ...]


def moments(trace: Trace) -> Iterator[Moment]:
    """The steps of the forward pass, in order; weights and what is made of weights alone count nothing."""
    operations = trace.operations
    moving = {trace.image.storage}
    last_use = {trace.logits.storage: len(operations)}
    for number, operation in enumerate(operations):
        if any(one.storage in moving for one in operation.inputs):
            moving |= {one.storage for one in operation.outputs if one.floating}
        for one in operation.inputs:
            last_use[one.storage] = max(number, last_use.get(one.storage, 0))
    alive = {trace.image.storage: trace.image}
    for number, operation in enumerate(operations):
        made = [one for one in operation.outputs if one.storage in moving and one.size and one.storage not in alive]
        if made:
            read = list(dict.fromkeys(one.storage for one in operation.inputs if one.storage in alive))
            reused = _reused(operation, made[0], [one for one in read if last_use[one] == number], alive)
            if reused is None:
                held = [one for storage, one in alive.items() if storage not in read]
                yield Moment(operation, (*held, *(alive[storage] for storage in read), *made))
            else:
                del alive[reused]
            alive |= {one.storage: one for one in made}
        alive = {storage: one for storage, one in alive.items() if last_use.get(storage, -1) > number}


def _reused(operation: Operation, made: Value, dying: list[int], alive: dict[int, Value]) -> int | None:
    """The storage that the operation may overwrite."""
    if operation.pointwise or "batch_norm" in operation.name or operation.name == "clone":
        return next((storage for storage in dying if alive[storage].size == made.size), None)
    return None
