"""Which budgets one trajectory serves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.errors import BudgetError
from common.models.description import BaseNetwork
from dac.plan import check_feasible, clipped, fork, join

BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
bounds = st.one_of(st.none(), st.integers(1, 1000))
budgets = st.builds(DeviceBudget, bounds, bounds, bounds)


def test_a_budget_below_the_floor_is_refused_with_the_floor_in_the_message() -> None:
    with pytest.raises(BudgetError, match=r"12,319,232 MACs, 511,586 parameters"):
        check_feasible(BASE, [DeviceBudget(), DeviceBudget(params=511_586)])


def test_the_floor_itself_is_feasible_just_above_its_own_cost() -> None:
    check_feasible(BASE, [DeviceBudget(macs=12_319_233, params=511_587)])
    with pytest.raises(BudgetError):
        check_feasible(BASE, [DeviceBudget(macs=12_319_232)])


def test_bounds_that_cannot_bind_are_all_alike() -> None:
    full = Architecture.full(BASE).costs
    assert clipped(DeviceBudget(macs=10**12), full) == clipped(DeviceBudget(), full)
    assert clipped(DeviceBudget(), full).admits(full)
    assert clipped(DeviceBudget(macs=5), Costs(9, 9, 9)) == DeviceBudget(5, 10, 10)


def test_budgets_that_bind_on_different_resources_fork() -> None:
    tight_macs, tight_params = DeviceBudget(macs=4, params=10), DeviceBudget(macs=6, params=3)
    tighter = DeviceBudget(macs=2, params=3)
    assert join([tight_macs, tight_params, tighter]) == DeviceBudget(macs=6, params=10)
    assert fork([tight_macs, tight_params, tighter]) == ([1, 2], [0])


@given(st.lists(budgets, min_size=1, max_size=6, unique=True))
def test_everything_lies_within_the_join_and_a_fork_always_leaves_two_parts(some: list[DeviceBudget]) -> None:
    loosest = join(some)
    assert all(budget.within(loosest) for budget in some)
    if loosest not in some:
        first, rest = fork(some)
        assert first
        assert rest
        assert sorted(first + rest) == list(range(len(some)))
        assert join([some[i] for i in first]) in some
