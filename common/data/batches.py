"""Mini-batches as tensors of indices."""

from collections.abc import Iterator

import torch
from torch import Tensor

from common.errors import DataError


def batches(count: int, batch_size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Yield every index of `range(count)` exactly once, `batch_size` at a time, as int64 tensors.

    The order is shuffled with `generator` (on the CPU), or ascending without one. A last batch of a single index, or of
    an eighth of `batch_size` or less, joins the one before it: batch norm cannot train on one sample, and two, where an
    image has become one pixel, have made training diverge. A `batch_size` of 1 is left alone.

    Raises DataError for a batch size below 1.
    """
    if batch_size < 1:
        raise DataError(f"a batch needs at least one image, not {batch_size}")
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    if count > 0:
        yield from order.tensor_split(_ends(count, batch_size))


def batch_count(count: int, batch_size: int) -> int:
    """How many batches `batches` yields."""
    return len(_ends(count, batch_size)) + 1 if count > 0 else 0


def largest_batch(batch_size: int) -> int:
    """The most images that a batch of `batches` can have, whatever `count` is."""
    return batch_size + _joined(batch_size)


def _joined(batch_size: int) -> int:
    """A last batch of so many images, or fewer, joins the one before it."""
    return max(1, batch_size // 8) if batch_size > 1 else 0


def _ends(count: int, batch_size: int) -> list[int]:
    """Where all batches but the last one end."""
    ends = list(range(batch_size, count, batch_size))
    if ends and count - ends[-1] <= _joined(batch_size):
        ends.pop()
    return ends
