"""Nested slices of one network: the first channels of every layer (Diao et al. 2021, HeteroFL, section 3)."""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache, partial

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.errors import BudgetError
from common.models import describe
from common.models.description import BaseNetwork, ChannelGroup
from dac.scaling import admitted, shares_of
from server.devices import Device
from server.methods.refusals import keep_able
from server.run import Run


def slice_at(base: BaseNetwork, rate: Fraction) -> Architecture:
    """The first ceil(rate * size) channels of every group that can be reduced; `rate` lies in (0, 1].

    Groups that a search may reduce keep no less than it must leave them, so the floor is the same for both.
    """
    kept = {group.name: range(_kept(group, rate)) for group in reducible(base)}
    return Architecture.with_kept(base, kept)


def largest_slice(base: BaseNetwork, budget: DeviceBudget) -> Architecture:
    """The slice of the largest rate that the budget admits; at the next larger rate that keeps more, it would not.

    Raises BudgetError, naming the smallest slice's costs, if none fits.
    """
    rates = _rates(base)
    fitting = admitted(rates, lambda rate: slice_at(base, rate).costs, budget)
    if fitting == 0:
        costs = smallest_costs(base)
        raise BudgetError(
            f"no slice fits a budget {budget}: the smallest of {base.model} for {base.input_shape} needs "
            f"{costs}; raise the budget, or lower --width or raise --strides"
        )
    return slice_at(base, rates[fitting - 1])


def common_slice(base: BaseNetwork, budgets: Sequence[DeviceBudget]) -> Architecture:
    """The largest slice that every one of the budgets admits: the smallest of those that each of them admits alone.

    Slices are nested, and a smaller one takes no more of anything. The meet of the budgets may admit less, or nothing:
    it is the budget of a device that is as slow in each kind of work as any of them. Raises BudgetError as
    `largest_slice` does.
    """
    slices = [largest_slice(base, budget) for budget in dict.fromkeys(budgets)]
    return min(slices, key=lambda one: one.costs.params)


def smallest_costs(base: BaseNetwork) -> Costs:
    """What the smallest slice needs."""
    return slice_at(base, _rates(base)[0]).costs


def reducible(base: BaseNetwork) -> tuple[ChannelGroup, ...]:
    """The channel groups that a slice keeps a part of."""
    return describe(base).reducible


def sliceable(devices: Sequence[Device], run: Run) -> list[Device]:
    """The devices whose budget some slice meets; the others are refused. Raises BudgetError if none is left."""
    return keep_able(devices, partial(largest_slice, run.reference.base), run)


def _kept(group: ChannelGroup, rate: Fraction) -> int:
    floor = group.floor if group.prunable else 1
    return max(floor, math.ceil(rate * group.size))


@lru_cache(maxsize=16)
def _rates(base: BaseNetwork) -> tuple[Fraction, ...]:
    """Every rate at which a slice gains a channel, ascending: the largest that keeps just as many."""
    return tuple(shares_of(group.size for group in reducible(base)))
