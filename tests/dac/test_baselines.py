"""Baselines: budgets hold strictly, importance is what the papers say, weights are inherited channel by channel."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import RESOURCES, DeviceBudget
from common.errors import ArchitectureError, BudgetError
from common.models.description import BaseNetwork
from common.search_space import SearchSpace
from dac.baselines import random_widths, shrink_to, width_multiplier
from dac.scaling import uniform
from tests.common.models.networks import base_of
from tests.examples import examples

BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
SMALL = BaseNetwork("mobilenet_v2", (1, 8, 8), 4, width=0.25)
FULL = Architecture.full(BASE).costs
FLOOR = Architecture.full(BASE).description.costs(Architecture.full(BASE).description.floor_sizes)

shares = st.one_of(st.none(), st.floats(0.01, 0.999))


def budget_of(fractions: tuple[float | None, ...]) -> DeviceBudget:
    """Bounds at a fraction of the way from the floor to the full network."""
    return DeviceBudget(
        *(
            None if share is None else FLOOR.get(r) + 1 + int(share * (FULL.get(r) - FLOOR.get(r)))
            for r, share in zip(RESOURCES, fractions, strict=True)
        )
    )


@pytest.mark.parametrize(("macs", "params"), [(60_000_000, 1_402_155), (100_000_000, 1_402_155), (60_000_000, None)])
def test_the_largest_width_multiplier_that_fits(macs: int, params: int | None) -> None:
    budget = DeviceBudget(macs=macs, params=params)
    found = width_multiplier(BASE, budget)
    assert budget.admits(found.costs)
    assert found == Architecture.full(found.base)
    wider = [replace(BASE, width=found.base.width + step / 1000) for step in range(1, 40)]
    assert all(not budget.admits(Architecture.full(base).costs) for base in wider)


def test_published_width_multipliers_are_found_by_their_parameters() -> None:
    # width 0.75 has 1,402,586 parameters (figure 3 of the paper), and bounds are strict
    found = width_multiplier(BASE, DeviceBudget(params=1_402_587))
    assert found.costs.params == 1_402_586
    assert width_multiplier(BASE, DeviceBudget(params=1_402_586)).costs.params < 1_402_586


def test_a_budget_that_does_not_bind_leaves_the_full_network() -> None:
    full = Architecture.full(BASE)
    assert width_multiplier(BASE, DeviceBudget()) == random_widths(BASE, DeviceBudget(), 0) == full


def test_a_budget_that_no_width_multiplier_meets_is_refused() -> None:
    with pytest.raises(BudgetError, match="no width multiplier"):
        width_multiplier(BASE, DeviceBudget(params=1000))
    with pytest.raises(BudgetError, match="smallest mobilenet_v2"):
        random_widths(BASE, DeviceBudget(params=1000), 0)


@settings(max_examples=examples(20), deadline=None)
@given(st.tuples(shares, shares, shares), st.integers(0, 1000))
def test_random_widths_meet_every_bound_strictly_and_waste_little(
    fractions: tuple[float | None, ...], seed: int
) -> None:
    budget = budget_of(fractions)
    found = random_widths(BASE, budget, seed)
    costs = found.costs
    assert budget.admits(costs)
    assert all(found.sizes[g.name] >= g.floor for g in found.description.prunable)
    if any(share is not None for share in fractions):
        assert any(costs.get(r) >= 0.97 * min(budget.bound(r), FULL.get(r)) for r in RESOURCES)


def test_random_widths_follow_the_seed() -> None:
    budget = budget_of((0.5, None, None))
    assert random_widths(BASE, budget, 1) == random_widths(BASE, budget, 1)
    first, second = random_widths(BASE, budget, 1), random_widths(BASE, budget, 2)
    assert first.sizes != second.sizes
    assert len({first.sizes[g.name] / g.size for g in first.description.prunable}) > 10


@settings(max_examples=examples(10), deadline=None)
@given(st.tuples(shares, shares, shares))
def test_pruned_networks_meet_every_bound_strictly_and_stay_nested_in_the_trained_one(
    fractions: tuple[float | None, ...],
) -> None:
    budget = budget_of(fractions)
    full = Architecture.full(BASE)
    importance = {
        g.name: torch.rand(g.size, generator=torch.Generator().manual_seed(7)) for g in full.description.prunable
    }
    smaller = shrink_to(full, importance, budget, SearchSpace())
    assert budget.admits(smaller.costs)
    assert full.contains(smaller)


@pytest.mark.parametrize("share", [0.5, 0.12, 0.06])
def test_in_the_space_of_every_group_random_widths_reach_budgets_below_the_floor_of_inner_channels(
    share: float,
) -> None:
    full, space = Architecture.full(BASE), SearchSpace("all", floor=4, multiple=8)
    budget = DeviceBudget(macs=int(full.costs.macs * share))
    architecture = random_widths(BASE, budget, 0, space)
    assert budget.admits(architecture.costs)
    assert any(architecture.sizes[f"stage{n}"] < full.sizes[f"stage{n}"] for n in range(1, 8))
    assert not architecture.removed


def test_a_users_network_has_no_width_multiplier_but_can_be_narrowed_uniformly() -> None:
    base = base_of("tests.common.models.users:thirty_lines")
    half = DeviceBudget(macs=Architecture.full(base).costs.macs // 2)
    with pytest.raises(ArchitectureError, match="has no width multiplier; the baseline `uniform` narrows any network"):
        width_multiplier(base, half)
    assert half.admits(uniform(base, half).costs)
