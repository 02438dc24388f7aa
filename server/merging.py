"""Merge the two nearest groups of budgets again and again, in a time that grows with the square of their number.

For each group its nearest partner is kept, so that a merge only looks anew for the groups that have lost theirs. Lower
limits of the distances to all others come from NumPy; those that may be the smallest are computed again, exactly, one
by one and in one fixed order, so that the result does not depend on how a processor rounds logarithms.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from common.budget import RESOURCES, Costs, DeviceBudget, Network

Groups = dict[DeviceBudget, list[int]]
Bounds = tuple[float, ...]

_ROUNDING = 1e-13
"""By how much two ways to add up the loss of one device may differ."""


def merge_nearest(groups: Mapping[DeviceBudget, list[int]], limit: int, full: Costs, floor: Costs) -> Groups:
    """At most `limit` groups: positions by budget, where all bounds of RESOURCES are finite.

    `full` is what the base network costs, `floor` what the smallest one costs, which every budget admits.

    A merge replaces two groups by the meet of their budgets; of all pairs it takes the one that loses least, the first
    in order where several lose the same. A pair whose meet does not admit the floor is never merged, as of two devices
    that are slow in different work: where no other is left, there are more groups than `limit`.
    """
    result = dict(groups)
    if len(result) <= limit:
        return result
    table = _Nearest(result, full, floor)
    while len(result) > limit and table.has_pair:
        first, second = table.pop_nearest()
        together = result.pop(first) + result.pop(second)
        meet = first.meet(second)
        result[meet] = result.get(meet, []) + together
        table.put(meet, len(result[meet]))
    return result


def _loss(bounds: Bounds, meet: Bounds) -> float:
    """What one device loses when its bounds become `meet`: the sum of log(bound before / bound after)."""
    return sum(math.log(before / after) for before, after in zip(bounds, meet, strict=True))


def _bounds(budget: DeviceBudget, full: Costs) -> Bounds:
    """The bounds on what all devices need alike, and what share of the full network's the others leave.

    Those of a meet are at most the smaller ones of the two, and less where devices are slow in different work.
    """
    shares = (budget.share(full, resource) for resource in ("training_memory_bytes", "latency"))
    return (*(budget.bound(resource) for resource in RESOURCES), *shares)


class _CountedOnce:
    """A network whose costs are asked for again and again."""

    def __init__(self, network: Network) -> None:
        self.training_memory_bytes = cache(network.training_memory_bytes)
        self.work = cache(network.work)


def _counted_once(costs: Costs) -> Costs:
    return costs if costs.network is None else replace(costs, network=_CountedOnce(costs.network))


_Key = tuple[float, int, int]  # loss, and the places of the two in the order of groups


class _Nearest:
    """Groups in slots, each with its nearest partner. Groups that have come later are later in order.

    A group without a partner never gets one: what comes later is tighter than what it could not be merged with.
    """

    def __init__(self, groups: Mapping[DeviceBudget, list[int]], full: Costs, floor: Costs) -> None:
        self._full, self._floor = _counted_once(full), _counted_once(floor)
        self._budgets = list(groups)
        self._slot = {budget: slot for slot, budget in enumerate(self._budgets)}
        self._exact = [_bounds(budget, full) for budget in self._budgets]
        self._bounds = np.array(self._exact, dtype=float)
        self._sizes = np.array([float(len(positions)) for positions in groups.values()])
        self._order = list(range(len(groups)))
        self._alive = np.ones(len(groups), dtype=bool)
        self._partner = np.full(len(groups), -1)
        self._loss = np.full(len(groups), np.inf)  # to the partner, exactly
        self._slack = _ROUNDING * max(1.0, self._sizes.sum())
        for slot in range(len(groups)):
            self._look(slot)

    @property
    def has_pair(self) -> bool:
        """Whether any two may be merged."""
        return bool(np.isfinite(self._loss).any())

    def pop_nearest(self) -> tuple[DeviceBudget, DeviceBudget]:
        """Remove the pair that loses least, and return it in order."""
        tied = np.flatnonzero(self._loss == self._loss.min())
        slot = min(map(int, tied), key=lambda one: self._key(one, int(self._partner[one])))
        pair = sorted((slot, int(self._partner[slot])), key=lambda one: self._order[one])
        for one in pair:
            self._alive[one] = False
            self._loss[one] = np.inf
            del self._slot[self._budgets[one]]
        self._forsaken = set(pair)
        self._free = pair[0]
        return self._budgets[pair[0]], self._budgets[pair[1]]

    def put(self, budget: DeviceBudget, size: int) -> None:
        """Add the group that has come of the last pair, or let the one of the same budget grow."""
        slot = self._slot.get(budget)
        if slot is None:
            slot = self._free
            self._budgets[slot] = budget
            self._slot[budget] = slot
            self._exact[slot] = _bounds(budget, self._full)
            self._bounds[slot] = self._exact[slot]
            self._order[slot] = max(self._order) + 1
            self._alive[slot] = True
        self._sizes[slot] = size
        forsaken = self._alive & np.isin(self._partner, [*self._forsaken, slot])
        forsaken[slot] = True
        for one in np.flatnonzero(forsaken):
            self._look(int(one))
        losses = self._losses(slot)
        paired = self._partner >= 0
        for one in np.flatnonzero(self._alive & ~forsaken & paired & (losses <= self._loss + self._slack)):
            nearer = self._key(int(one), slot) < self._key(int(one), int(self._partner[one]))
            if nearer and self._may_merge(int(one), slot):
                self._set(int(one), slot)

    def _look(self, slot: int) -> None:
        """Find the partner of `slot` among all."""
        losses = self._losses(slot)
        self._partner[slot], self._loss[slot] = -1, np.inf
        best: _Key | None = None
        while np.isfinite(least := losses.min()) and (best is None or least <= best[0] + self._slack):
            for one in map(int, np.flatnonzero(losses <= least + self._slack)):
                losses[one] = np.inf
                key = self._key(slot, one)
                if (best is None or key < best) and self._may_merge(slot, one):
                    best, self._partner[slot], self._loss[slot] = key, one, key[0]

    def _may_merge(self, one: int, other: int) -> bool:
        return self._budgets[one].meet(self._budgets[other]).admits(self._floor)

    def _set(self, slot: int, partner: int) -> None:
        self._partner[slot] = partner
        self._loss[slot] = self._key(slot, partner)[0]

    def _losses(self, slot: int) -> np.ndarray:
        """What merging `slot` with each other slot loses at least, up to rounding; infinity where there is none."""
        own = self._bounds[slot]
        meet = np.minimum(self._bounds, own)
        losses: np.ndarray = self._sizes * np.log(self._bounds / meet).sum(axis=1)
        losses += self._sizes[slot] * np.log(own / meet).sum(axis=1)
        losses[~self._alive] = np.inf
        losses[slot] = np.inf
        return losses

    def _key(self, one: int, other: int) -> _Key:
        first, second = sorted((one, other), key=self._order.__getitem__)
        bounds = self._exact[first], self._exact[second]
        meet = self._meet(first, second)
        loss = sum(
            _loss(each, meet) * int(self._sizes[slot]) for each, slot in zip(bounds, (first, second), strict=True)
        )
        return loss, self._order[first], self._order[second]

    def _meet(self, first: int, second: int) -> Bounds:
        """The bounds of two slots' meet."""
        one, other = self._budgets[first], self._budgets[second]
        if (one.latency and other.latency) or one.training != other.training:
            return _bounds(one.meet(other), self._full)
        return tuple(map(min, self._exact[first], self._exact[second]))
