"""What training keeps in memory of a forward pass for its backward pass, from a trace in training mode.

Autograd itself is asked (torch's saved-tensor hooks), so that this holds for every operation torch has. Which channels
a kept tensor runs over is read from the parameters, whose dimensions the description of the network knows.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from torch import nn

from common.models.description import Block, Entries, Saved, Tensor, block_of
from common.models.ties import Run, Stretches, Ties
from common.models.trace import BATCH, Save, Trace, Value, record

Wanted: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]


def saved_in_training(
    module: nn.Module, input_shape: tuple[int, ...], tensors: Sequence[Tensor], blocks: Sequence[Block]
) -> tuple[Saved, ...]:
    """What is kept when `module`, on the meta device, trains on images of `input_shape` with cross-entropy.

    `tensors` and `blocks` are those of its description. Memory is counted by storage: views share it, and parameters
    and buffers are not counted.
    """
    trace = record(module, input_shape, training=True)
    return tuple(_Kept(trace, tensors, blocks).found())


class _Kept:
    """A trace in training mode, read with the names of channel groups."""

    def __init__(self, trace: Trace, tensors: Sequence[Tensor], blocks: Sequence[Block]) -> None:
        self.trace, self.blocks = trace, blocks
        self.ties = Ties.of(trace)
        self.groups: dict[Run, str] = {}
        for tensor in tensors:
            dimensions = self.ties.of_value(trace.parameters[tensor.name])
            for stretches, axes in zip(dimensions, tensor.dimensions, strict=True):
                self.groups |= {run.root(): axis.group for (run, _), axis in zip(stretches, axes, strict=False)}
        self.owned = {value.storage for value in trace.parameters.values()}
        self.first: dict[int, Value] = {}  # the value that a storage was made for
        for operation in trace.operations:
            for value in (*operation.inputs, *operation.outputs):
                self.first.setdefault(value.storage, value)
        self.moving = self._of_images()

    def _of_images(self) -> set[int]:
        """The storages that may grow with the batch: what is made of the image, and of what has as many rows.

        The latter are labels and noise, which are made of nothing. What is made of weights alone is not among them.
        """
        moving = {self.trace.image.storage}
        for operation in self.trace.operations:
            rows = (one for one in operation.inputs if one.maker is None and one.storage not in self.owned)
            moving |= {one.storage for one in rows if one.shape and one.shape[0] % BATCH == 0}
            if any(one.storage in moving for one in operation.inputs):
                moving |= {one.storage for one in operation.outputs}
        return moving

    def found(self) -> Iterator[Saved]:
        """Everything that is kept, whichever blocks have vanished."""
        wanted: dict[int, tuple[Save, dict[tuple[str, tuple[str, ...]], None]]] = {}
        gone: tuple[str, ...]
        above = dict(self._identities())
        for save in self.trace.saves:
            if save.storage in self.owned or not save.size:
                continue
            storage, gone = save.storage, ()
            while True:  # where blocks have vanished, what was given to them is kept in the place of what they made
                wanted.setdefault(storage, (save, {}))[1][block_of(save.path, self.blocks), gone] = None
                if storage not in above:
                    break
                storage, block = above[storage]
                gone = (*gone, block)
        for storage, (save, conditions) in wanted.items():
            maker = above[storage][1] if storage in above else ""
            yield self._saved(self.first.get(storage), save.size, maker, tuple(conditions))

    def _identities(self) -> Iterator[tuple[int, tuple[int, str]]]:
        """What a block returns is what it was given, once it has vanished: by storage of the one, that of the other."""
        for block in self.blocks:
            call = self.trace.calls[block.name][0]
            if call.output is not None and call.output.storage != call.inputs[0].storage:
                yield call.output.storage, (call.inputs[0].storage, block.name)

    def _saved(self, value: Value | None, size: int, maker: str, wanted: Wanted) -> Saved:
        if value is None or size % value.size:
            return Saved((("", size),), 1, False, maker, wanted)
        dimensions = self._dimensions(value)
        rows = bool(value.shape) and value.shape[0] % BATCH == 0 and not dimensions[0]
        per_image = rows and value.storage in self.moving
        entries = value.size // BATCH if per_image else value.size
        carrying = [place for place, one in enumerate(dimensions) if one]
        known: Entries = (("", entries),)
        if len(carrying) == 1 and all(run.root() in self.groups for run, _ in dimensions[carrying[0]]):
            others = entries // value.shape[carrying[0]]
            known = tuple(
                (self.groups[run.root()], others * spread * run.features // run.root().channels)
                for run, spread in dimensions[carrying[0]]
            )
        return Saved(known, size // value.size, per_image, maker, wanted)

    def _dimensions(self, value: Value) -> list[Stretches]:
        """What the value runs over; statistics of a batch norm, one per channel, run over its channels."""
        maker = value.maker
        if maker is not None and "batch_norm" in maker.name and len(value.shape) == 1:
            return [self.ties.of_value(maker.inputs[0])[1]]
        return self.ties.of_value(value)
