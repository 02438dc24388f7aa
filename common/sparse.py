"""Weights of which only some are kept, as they travel: the kept values, and one bit per weight that says which.

With a share s of float32 weights kept that is 4 s + 1/8 bytes per weight from the server, which says which are kept,
and 4 s back, for the server knows.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.arrays import Array, Vector
from common.errors import MessageError

Kept: TypeAlias = NDArray[np.bool_]
"""Which weights of a flat vector are kept, shape (size,); the others are zero."""


def packed(kept: Kept) -> NDArray[np.uint8]:
    """One bit per weight, the first in the highest bit of the first byte; shape (ceil(size / 8),).

    >>> packed(np.array([True, False, False, False, False, False, False, True, True])).tolist()
    [129, 128]
    """
    return np.packbits(kept)


def unpacked(bits: Array, size: int) -> Kept:
    """The inverse of `packed` for `size` weights; raises MessageError for another number of bytes."""
    if bits.dtype != np.uint8 or bits.shape != (-(-size // 8),):
        raise MessageError(
            f"which of {size} weights are kept takes {-(-size // 8)} bytes, not {bits.dtype} of shape {bits.shape}"
        )
    return np.unpackbits(bits, count=size).astype(np.bool_)


def spread(values: Array, kept: Kept) -> Vector:
    """All weights from the `values` of the kept ones, shape (kept.sum(),): zeros between them; shape (size,).

    Raises MessageError for another number of values.
    """
    count = int(kept.sum())
    if values.dtype != np.float32 or values.shape != (count,):
        raise MessageError(f"{count} weights are kept, the message has {values.dtype} of shape {values.shape}")
    weights = np.zeros(len(kept), np.float32)
    weights[kept] = values
    return weights
