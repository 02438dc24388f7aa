"""A refused budget names settings that work, and they do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.bounds import parse_count
from common.config import Config
from common.data.sources import load
from common.errors import BudgetError
from simulation.preflight import check, check_budgets
from simulation.remedies import enough
from tests.examples import slow

REFUSED = {
    "strides": (
        {"search-space": "inner", "max-macs": "1M", "strides": "1,1,1,1,1,1,1", "stem-stride": 1},
        {"stem-stride": 0, "strides": "auto"},
    ),
    "width": ({"search-space": "inner", "max-macs": "300k"}, {"width": 0.5}),
    "space": ({"search-space": "inner", "max-params": "30K"}, {"search-space": "all"}),
    "bound": ({"max-params": "1000"}, {"max-params": "2.4K"}),
    "bound-inner": ({"search-space": "inner", "max-params": "1000"}, {"max-params": "520K"}),
    "time": ({"max-latency-ms": 0.1}, {"max-latency-ms": 1.0}),
    "fleet": ({"image-size": 512, "train-images": 60, "test-images": 10}, {"fleet": "phone,workstation"}),
}


@pytest.mark.parametrize("name", ["strides", "width", "space", "bound", "bound-inner", "time", *slow("fleet")])
def test_the_mildest_change_that_works_is_named(name: str) -> None:
    settings, remedy = REFUSED[name]
    config = Config.from_mapping({"train-images": 200, **settings})
    with pytest.raises(BudgetError, match="no architecture fits") as refused:
        check(config)
    assert refused.value.remedy == remedy
    check_budgets(config.changed(remedy), load(config.data))


def test_the_strides_of_a_run_are_numbers() -> None:
    whole, _ = check(Config.from_mapping({"image-size": 28}))
    assert (whole.model.stem_stride, whole.model.strides) == (2, "1,2,2,2,1,2,1")


def test_bounds_are_written_as_people_do() -> None:
    assert [enough(cost) for cost in (511_010, 999_999, 1_000_000, 23, 4096)] == ["520K", "1.0M", "1.1M", "24", "4.1K"]


@given(st.integers(0, 10**10))
def test_a_bound_that_is_enough_is_above_the_cost(cost: int) -> None:
    assert cost < parse_count(enough(cost), "--max-macs") <= 1.2 * cost + 1
