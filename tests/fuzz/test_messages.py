"""5,000 generated messages of a hostile device through the real strategy, exchange and serialisation.

    pytest -m slow tests/fuzz/test_messages.py

The properties are those of `tests/server/test_hostile_replies.py`, which tries some hundreds of each always; here no
message may take more than MEMORY_BYTES at its peak either.
"""

from collections.abc import Callable
from typing import Any

import pytest
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.commands import MEMORY_BYTES
from tests.fuzz.limits import peak_bytes, reset_peak
from tests.server import test_hostile_replies as hostile

ARRAYS = st.one_of(hostile.poisoned(), hostile.described.map(hostile.with_array))
PROPERTIES: list[tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...], int]] = [
    (hostile.test_no_reply_touches_the_model_unless_it_is_honest, (hostile.hostile_replies, st.booleans()), 2000),
    (hostile.test_arrays_that_are_not_the_models_are_refused, (ARRAYS,), 1000),
    (hostile.test_damaged_bytes_cost_their_sender_alone, (hostile.damage(), st.integers(0, 6)), 1000),
    (hostile.test_no_report_does_more_than_leave_its_device_out, (hostile.reports,), 1000),
]


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("prop", "strategies", "count"), PROPERTIES, ids=[one[0].__name__ for one in PROPERTIES])
def test_generated_messages(
    prop: Callable[..., None],
    strategies: tuple[st.SearchStrategy[Any], ...],
    count: int,
) -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    tried = 0

    @settings(hostile.plenty, max_examples=count)
    @given(st.tuples(*strategies))
    def check(values: tuple[Any, ...]) -> None:
        nonlocal tried
        tried += 1
        before = reset_peak()
        prop.hypothesis.inner_test(*values)  # type: ignore[attr-defined]
        assert peak_bytes() - before < MEMORY_BYTES

    check()
    assert tried >= count
