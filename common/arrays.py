"""What a named array in a device's answer must be before anything is done with it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import MessageError

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
Vector: TypeAlias = NDArray[np.float32]

DTYPES = ("<f4", "<f2", "<i4", "<i8", "|u1", "|i1")
"""The types that travel, all little-endian."""


@dataclass(frozen=True, eq=False)
class ArraySpec:
    """Type, shape and range of an array.

    `dtype` is one of DTYPES. A None in `shape` is a number of rows, one per image: at most as many as the device
    registered images, and the same in all arrays of an answer; there is at most one. `low` and `high` are inclusive;
    both may be arrays that broadcast. The Euclidean norm is at most `largest_norm`. With `sample_ids` the values
    say which of the device's images a row is about: from 0, below the number that it registered, and none twice.
    """

    dtype: str
    shape: tuple[int | None, ...]
    low: float | Vector = -math.inf
    high: float | Vector = math.inf
    largest_norm: float = math.inf
    sample_ids: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.shape.count(None) > 1:
            raise ValueError(f"no array of {self.dtype} and shape {self.shape} can be asked for")

    def nbytes(self, rows: int) -> int:
        """The bytes that its values take with so many rows."""
        return math.prod(rows if one is None else one for one in self.shape) * np.dtype(self.dtype).itemsize

    def check_form(self, name: str, dtype: str, shape: tuple[int, ...], rows: int) -> int | None:
        """The number of rows, None where there is none; raises MessageError for another type or shape."""
        wanted = ", ".join("rows" if one is None else str(one) for one in self.shape)
        fits = len(shape) == len(self.shape) and all(
            want is None or have == want for have, want in zip(shape, self.shape, strict=True)
        )
        if dtype != self.dtype or not fits:
            raise MessageError(f"{name} must be {self.dtype} of shape ({wanted}), not {dtype!s:.40} of {shape!s:.60}")
        found = next((have for have, want in zip(shape, self.shape, strict=True) if want is None), None)
        if found is not None and found > rows:
            raise MessageError(f"{name} has {found} rows, but the device registered {rows} images")
        return found

    def check_values(self, name: str, values: Array, rows: int) -> None:
        """Raise MessageError for values that are not finite, out of range, of too large a norm, or no sample ids.

        `rows` is how many images the device registered.
        """
        norm = norm_of(values) if values.dtype.kind == "f" or self.largest_norm < math.inf else 0.0
        if not math.isfinite(norm):  # no square of a finite value that travels overflows
            raise MessageError(f"{name} are not finite")
        for bound, beyond, limit in ((self.low, np.less, "below"), (self.high, np.greater, "above")):
            if isinstance(bound, float) and math.isinf(bound):
                continue
            outside = beyond(values, bound)
            if outside.any():
                where = int(np.argmax(outside))
                raise MessageError(f"{name} has {float(values.flat[where]):.3g} at {where}, {limit} what is possible")
        if norm > self.largest_norm:
            raise MessageError(f"{name} have norm {norm:.3g}, above the limit of {self.largest_norm:.3g}")
        if self.sample_ids:
            _check_ids(name, values, rows)


def _check_ids(name: str, values: Array, rows: int) -> None:
    outside = (values < 0) | (values >= rows)
    if outside.any():
        raise MessageError(f"{name} has {int(values[outside][0])}, but the device's images are 0 to {rows - 1}")
    if len(np.unique(values)) != len(values):
        raise MessageError(f"{name} has the same image twice")


BLOCK = 2**16
"""Values that are worked on at a time: a few copies in float64 stay in the processor's cache."""


def blocks(size: int, each: int = BLOCK) -> Iterator[slice]:
    """The stretches of a vector of `size` values, of `each` values, the last perhaps of fewer."""
    for start in range(0, size, each):
        yield slice(start, min(start + each, size))


def norm_of(values: Array) -> float:
    """The Euclidean norm, computed in float64."""
    flat = values.reshape(-1)
    # so short that the product is not divided among threads, which would take longer than it
    parts = (flat[part].astype(np.float64) for part in blocks(flat.size, 2**13))
    return math.sqrt(sum(float(part @ part) for part in parts))
