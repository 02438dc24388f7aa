"""Plain scaling: every layer of a network narrowed alike, by the largest rate that a budget admits."""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from fractions import Fraction
from typing import TypeVar

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.errors import BudgetError
from common.models import describe
from common.models.description import BaseNetwork

T = TypeVar("T")


def uniform(base: BaseNetwork, budget: DeviceBudget, removed: Collection[str] = ()) -> Architecture:
    """The first ceil(w * size) channels of every group that can be reduced, for the largest w that fits.

    The blocks `removed` are left out, for a shallower network. Raises BudgetError if not even one channel of each fits.
    """
    reducible = describe(base).reducible
    rates = shares_of(group.size for group in reducible)

    def at(rate: Fraction) -> Architecture:
        kept = {one.name: range(math.ceil(rate * one.size)) for one in reducible}
        return Architecture.with_kept(base, kept, removed)

    count = admitted(rates, lambda rate: at(rate).costs, budget)
    if count == 0:
        costs = at(rates[0]).costs
        raise BudgetError(
            f"no uniform {base.model} fits a budget {budget}: with one channel in each group it still has "
            f"{costs.macs:,} MACs, {costs.params:,} parameters and {costs.peak_memory_bytes:,} bytes of peak memory"
        )
    return at(rates[count - 1])


def shares_of(sizes: Iterable[int]) -> list[Fraction]:
    """Every share, from the smallest on, at which a group of one of these sizes keeps one channel more.

    A network of no such group has one share, the whole.
    """
    return sorted({Fraction(kept, size) for size in sizes for kept in range(1, size + 1)}) or [Fraction(1)]


def admitted(sizes: Sequence[T], costs_at: Callable[[T], Costs], budget: DeviceBudget) -> int:
    """How many of `sizes`, from the smallest on, cost what the budget admits.

    Costs grow with the size, so the first that is too large is found by halving.
    """
    return bisect_left(sizes, True, key=lambda size: not budget.admits(costs_at(size)))
