import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.data.batches import batch_count, batches, largest_batch
from common.errors import DataError


def test_without_a_generator_indices_ascend() -> None:
    assert [batch.tolist() for batch in batches(6, 4, None)] == [[0, 1, 2, 3], [4, 5]]


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    assert [batch.tolist() for batch in batches(5, 4, None)] == [[0, 1, 2, 3, 4]]
    assert [len(batch) for batch in batches(9, 4, None)] == [4, 5]


def test_one_image_is_one_batch_and_none_is_none() -> None:
    assert [batch.tolist() for batch in batches(1, 4, None)] == [[0]]
    assert list(batches(0, 4, None)) == []


def test_the_generator_decides_the_order() -> None:
    first, again, other = (
        torch.cat(list(batches(50, 8, torch.Generator().manual_seed(seed)))).tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert first != list(range(50))


@given(count=st.integers(0, 200), batch_size=st.integers(1, 50), shuffled=st.booleans())
def test_every_index_comes_once_and_no_batch_is_a_lone_leftover(count: int, batch_size: int, shuffled: bool) -> None:
    parts = list(batches(count, batch_size, torch.Generator().manual_seed(3) if shuffled else None))
    assert sorted(index for part in parts for index in part.tolist()) == list(range(count))
    assert len(parts) == batch_count(count, batch_size)
    assert all(len(part) <= largest_batch(batch_size) for part in parts)
    fewest = max(1, batch_size // 8)  # two images of one pixel in a batch of their own made a whole run diverge
    if batch_size > 1 and len(parts) > 1:
        assert all(len(part) > fewest for part in parts)


@given(batch_size=st.integers(1, 200))
def test_the_largest_batch_is_one_that_there_is(batch_size: int) -> None:
    counts = range(1, 3 * batch_size + 1)
    sizes = {len(part) for count in counts for part in batches(count, batch_size, None)}
    assert max(sizes) == largest_batch(batch_size)


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(DataError, match="at least one"):
        list(batches(5, 0, None))
