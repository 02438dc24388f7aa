"""Sparse weights on the wire: one bit per weight, and the kept values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MessageError
from common.sparse import packed, spread, unpacked


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_what_is_packed_comes_out_again(bits: list[bool]) -> None:
    kept = np.array(bits)
    assert unpacked(packed(kept), len(bits)).tolist() == bits
    assert packed(kept).nbytes == (len(bits) + 7) // 8
    weights = np.where(kept, np.arange(1, len(bits) + 1, dtype=np.float32), np.float32(0))
    assert np.array_equal(spread(weights[kept], kept), weights)


def test_what_does_not_fit_is_refused() -> None:
    kept = np.array([True, False, True])
    for values in (np.zeros(1, np.float32), np.zeros(3, np.float32), np.zeros((2, 1), np.float32), np.zeros(2)):
        with pytest.raises(MessageError, match="2 weights are kept"):
            spread(values, kept)
    for bits in (np.zeros(1, np.int8), np.zeros(2, np.uint8), np.zeros((1, 1), np.uint8), np.zeros(0, np.uint8)):
        with pytest.raises(MessageError, match="takes 1 bytes"):
            unpacked(bits, 3)
