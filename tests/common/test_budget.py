"""Budgets are strict upper bounds; sizes are read as people write them and never guessed."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.bounds import parse_bounds, parse_bytes, parse_count
from common.budget import RESOURCES, Costs, DeviceBudget, LocalTraining, largest
from common.errors import BudgetError
from common.rates import COUNTED, LatencyBound

bounds = st.none() | st.integers(1, 2**62)
budgets = st.builds(DeviceBudget, bounds, bounds, bounds)
amounts = st.integers(0, 2**62)
costs = st.builds(Costs, amounts, amounts, amounts)


def test_a_bound_is_strict() -> None:
    budget = DeviceBudget(macs=100, params=10)
    assert budget.admits(Costs(macs=99, params=9, peak_memory_bytes=10**9))
    assert budget.violated(Costs(macs=100, params=9, peak_memory_bytes=0)) == ["macs"]
    assert budget.violated(Costs(macs=101, params=10, peak_memory_bytes=0)) == ["macs", "params"]


def test_a_missing_bound_is_infinite() -> None:
    assert [DeviceBudget().bound(resource) for resource in RESOURCES] == [math.inf] * 3
    assert DeviceBudget().admits(Costs(2**62, 2**62, 2**62))


@pytest.mark.parametrize("bound", [0, -1, 1.5, 10.0, math.nan, "10", True, [1]])
@pytest.mark.parametrize("resource", RESOURCES)
def test_a_bound_that_is_not_a_positive_whole_number_is_refused(resource: str, bound: object) -> None:
    with pytest.raises(BudgetError, match=f"the {resource} bound must be"):
        DeviceBudget(**{resource: bound})  # type: ignore[arg-type]


def test_bounds_stay_exact_beyond_the_precision_of_a_float() -> None:
    budget = DeviceBudget(macs=2**53 + 1)
    assert budget.admits(Costs(2**53, 1, 1))
    assert not budget.admits(Costs(2**53 + 1, 1, 1))
    assert budget.meet(budget) == budget
    assert DeviceBudget(macs=10**400).admits(Costs(1, 1, 1))


def test_meet_and_join_by_hand() -> None:
    one, other = DeviceBudget(macs=5, params=None, peak_memory_bytes=7), DeviceBudget(macs=3, params=4)
    assert one.meet(other) == DeviceBudget(3, 4, 7)
    assert one.join(other) == DeviceBudget(5, None, None)


@given(budgets, budgets, costs)
def test_meet_admits_what_both_admit(one: DeviceBudget, other: DeviceBudget, cost: Costs) -> None:
    assert one.meet(other).admits(cost) == (one.admits(cost) and other.admits(cost))


@given(budgets, budgets, costs)
def test_join_admits_whatever_either_admits(one: DeviceBudget, other: DeviceBudget, cost: Costs) -> None:
    assert one.join(other).admits(cost) or not (one.admits(cost) or other.admits(cost))


@given(budgets, budgets)
def test_meet_and_join_are_the_bounds_of_the_order(one: DeviceBudget, other: DeviceBudget) -> None:
    low, high = one.meet(other), one.join(other)
    assert low.within(one)
    assert low.within(other)
    assert one.within(high)
    assert other.within(high)
    assert one.meet(high) == one == one.join(low)
    assert one.within(other) == (low == one)


def test_a_budget_reads_as_a_sentence() -> None:
    assert str(DeviceBudget(macs=30_000_000, peak_memory_bytes=512_000)) == (
        "below 30,000,000 MACs, 512,000 bytes of peak memory"
    )
    assert str(DeviceBudget()) == "unbounded"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("30M", 30_000_000),
        ("30 m", 30_000_000),
        ("1.2e6", 1_200_000),
        (".5M", 500_000),
        ("1e-3G", 1_000_000),
        ("2b", 2 * 10**9),
        ("714_658", 714_658),
        ("2,296,922", 2_296_922),
    ],
)
def test_counts(text: str, expected: int) -> None:
    assert parse_count(text, "--max-macs") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512KB", 512_000), ("512KiB", 524_288), ("2MiB", 2_097_152), ("1g", 10**9), ("64 b", 64), ("1.5kib", 1536)],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_bytes(text, "--max-memory") == expected


# 1,5M is one and a half million in half of Europe: refused rather than read as 15 million.
NONSENSE = [
    "",
    " ",
    ".",
    "abc",
    "-5",
    "0",
    "0.2",
    "1..2",
    "1,5M",
    "1,,000",
    "5 MM",
    "inf",
    "nan",
    "1e999",
    "9e18g",
    "0x10",
]


@pytest.mark.parametrize("text", NONSENSE)
def test_a_number_that_is_not_one_is_refused_by_the_name_of_its_flag(text: str) -> None:
    with pytest.raises(BudgetError, match="--max-macs must be a positive number such as 30M"):
        parse_count(text, "--max-macs")
    with pytest.raises(BudgetError, match="--max-memory must be a positive size such as 512KB"):
        parse_bytes(text, "--max-memory")


@given(st.text())
def test_any_text_is_a_positive_count_or_a_budget_error(text: str) -> None:
    try:
        count = parse_count(text, "--max-macs")
    except BudgetError:
        return
    assert 1 <= count <= 2**62


@given(st.integers(1, 2**53))
def test_whole_numbers_are_read_exactly(count: int) -> None:
    assert parse_count(str(count), "x") == parse_count(f"{count:,}", "x") == parse_bytes(str(count), "x") == count


counts = st.integers(1, 6)
trainings = st.builds(LocalTraining, st.integers(1, 3), st.booleans())
shares = st.lists(st.sampled_from([0.0, 0.25, 0.3, 1.0]), min_size=len(COUNTED), max_size=len(COUNTED)).map(tuple)
latencies = st.builds(LatencyBound, st.just(1.0), shares.filter(any))
any_budgets = st.builds(
    DeviceBudget, st.none() | counts, st.none(), st.none(), st.none() | counts, st.none() | latencies, trainings
)


class Written:
    """A network whose costs are written down."""

    def __init__(self, memory: int, units: int) -> None:
        self.memory, self.units = memory, units

    def training_memory_bytes(self, training: LocalTraining) -> int:
        return self.memory * training.batch_size + training.kept

    def work(self) -> list[int]:
        return [self.units, *range(len(COUNTED) - 1)]


@given(any_budgets, any_budgets, counts, st.integers(0, 3), st.integers(0, 3))
def test_meet_and_join_hold_for_every_resource(
    one: DeviceBudget, other: DeviceBudget, macs: int, memory: int, units: int
) -> None:
    costs = Costs(macs, 1, 1, Written(memory, units))
    either, both = one.admits(costs) or other.admits(costs), one.admits(costs) and other.admits(costs)
    assert both or not one.meet(other).admits(costs)
    assert one.join(other).admits(costs) or not either
    assert one.within(one.join(other))
    assert one.meet(other).within(one)
    if one.within(other):
        assert other.admits(costs) or not one.admits(costs)
        assert one.join(other) == other
        assert other.looseness() >= one.looseness()


@given(any_budgets)
def test_a_budget_survives_json(budget: DeviceBudget) -> None:
    assert DeviceBudget.from_dict(json.loads(json.dumps(budget.to_dict()))) == budget


@pytest.mark.parametrize(
    "data",
    [
        {"latency": 5},
        {"latency": {"milliseconds": 1}},
        {"latency": {"milliseconds": 1.0, "shares": [1.0]}},
        {"training": 3},
        {"macs": "5"},
    ],
)
def test_json_that_is_no_budget_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(BudgetError):
        DeviceBudget.from_dict(data)


def test_how_a_device_trains_matters_only_where_its_memory_is_bounded() -> None:
    assert DeviceBudget(macs=5, training=LocalTraining(99)) == DeviceBudget(macs=5)
    assert DeviceBudget(training_memory_bytes=5, training=LocalTraining(99)) != DeviceBudget(training_memory_bytes=5)


def test_costs_that_were_written_down_cannot_be_held_against_time() -> None:
    with pytest.raises(ValueError, match="written down"):
        DeviceBudget(latency=LatencyBound(1.0, (1.0,) * len(COUNTED))).admits(Costs(1, 1, 1))


def test_the_largest_of_several_costs_suffices_for_each() -> None:
    most = largest([Costs(3, 1, 7, Written(5, 2)), Costs(1, 9, 2, Written(1, 4))])
    assert most == Costs(3, 9, 7)
    assert most.training_memory_bytes(LocalTraining(2, 0)) == 10
    assert next(iter(most.work())) == 4


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"params": "77KB:int8"}, DeviceBudget(params=77_000)),
        ({"params": "2MB:float32"}, DeviceBudget(params=500_000)),
        ({"params": "77k"}, DeviceBudget(params=77_000)),
        ({"memory": "64KiB:INT8"}, DeviceBudget(peak_memory_bytes=4 * 65_536)),
        ({"memory": "64KB:float32"}, DeviceBudget(peak_memory_bytes=64_000)),
    ],
)
def test_sizes_may_name_the_type_that_values_are_stored_in(given: dict[str, str], expected: DeviceBudget) -> None:
    assert parse_bounds(given) == expected


@pytest.mark.parametrize("text", ["64KB:int4", ":int8", "0.5B:int8", "64KB:", "int8"])
def test_sizes_in_other_types_are_refused(text: str) -> None:
    for key in ("params", "memory"):
        with pytest.raises(BudgetError, match=f"{key} must"):
            parse_bounds({key: text})
