"""Plain scaling: one rate for all groups, the largest that a budget admits, to the channel."""

import math
from fractions import Fraction

import pytest

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import BudgetError
from common.models import allow_network, describe
from common.models.description import BaseNetwork
from dac.scaling import admitted, shares_of, uniform

BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
CNN = BaseNetwork("cnn", (1, 8, 8), 4)
FULL = Architecture.full(BASE).costs


@pytest.mark.parametrize("base", [BASE, CNN, BaseNetwork("resnet8", (3, 32, 32), 10)], ids=lambda base: base.model)
def test_uniform_scales_every_group_to_the_channel(base: BaseNetwork) -> None:
    full = Architecture.full(base)
    for share in (0.1, 0.25, 0.5, 0.9):
        budget = DeviceBudget(macs=int(share * full.costs.macs))
        found = uniform(base, budget)
        assert budget.admits(found.costs)
        groups = full.description.reducible
        rate = min(Fraction(found.sizes[group.name], group.size) for group in groups)
        assert all(found.sizes[group.name] == math.ceil(rate * group.size) for group in groups)
        # the next rate at which any group gains a channel is too large
        wider = min(Fraction(math.floor(rate * group.size) + 1, group.size) for group in groups)
        more = {group.name: min(group.size, math.ceil(wider * group.size)) for group in groups}
        assert not budget.admits(full.description.costs({**full.sizes, **more}))


def test_uniform_by_hand() -> None:
    # stem 3x3 and one block of 4 -> 4: at w = 1/2 of resnet8, every group has half its channels
    half = uniform(BaseNetwork("resnet8", (3, 32, 32), 10), DeviceBudget(macs=3_300_000))
    assert {half.sizes[name] for name in ("stem_conv", "blocks.0.conv1")} == {8}
    assert half.sizes["blocks.2.conv2"] == 32


def test_uniform_without_blocks_spends_what_they_cost_on_width() -> None:
    budget = DeviceBudget(macs=FULL.macs // 4)
    blocks = list(describe(BASE).block_by_name)
    deep, shallow = uniform(BASE, budget), uniform(BASE, budget, blocks)
    assert shallow.removed == tuple(blocks)
    assert shallow.costs.macs <= budget.bound("macs")
    kept = [(shallow.sizes[group], size) for group, size in deep.sizes.items() if shallow.indices[group]]
    assert all(wider >= size for wider, size in kept)
    assert sum(wider for wider, _ in kept) > sum(size for _, size in kept)


def test_uniform_below_one_channel_is_refused() -> None:
    with pytest.raises(BudgetError, match="no uniform mobilenet_v2 fits"):
        uniform(BASE, DeviceBudget(params=100))


def test_a_network_that_cannot_be_reduced_is_whole_or_refused() -> None:
    allow_network("tests.common.models.users:irreducible")
    base = BaseNetwork("tests.common.models.users:irreducible", (1, 8, 8), 4)
    full = Architecture.full(base)
    assert uniform(base, DeviceBudget()) == full
    with pytest.raises(BudgetError, match="no uniform"):
        uniform(base, DeviceBudget(macs=full.costs.macs))


def test_shares_and_how_many_are_admitted_by_hand() -> None:
    assert shares_of([2, 4, 2]) == [Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1)]
    assert shares_of([]) == [1]
    costs = {size: Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10, width=size)).costs for size in (1, 2, 3)}
    for count, bound in enumerate([*(one.params for one in costs.values()), math.inf]):  # bounds are strict
        budget = DeviceBudget(params=None if bound == math.inf else int(bound))
        assert admitted([1, 2, 3], costs.__getitem__, budget) == count
