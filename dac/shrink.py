"""Removing channels and blocks, one at a time, until a target is met (DAC paper, algorithm 1)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from common.architecture import Architecture
from common.budget import BOUNDED, Costs, DeviceBudget
from common.models.description import BYTES_PER_VALUE, Description
from common.search_space import SearchSpace

LARGEST_GROUP_SHARE = 0.5  # of a group's channels that one step may remove


@dataclass(frozen=True)
class Ranking:
    """How a channel's worth is judged: per group, one value for each channel the architecture keeps, in its order.

    `importance` is weighed against cost; channels whose gate is at or below `threshold` go before all others,
    smallest gate first, as the paper has it. A block is a group of one.
    """

    importance: Mapping[str, torch.Tensor]
    gate: Mapping[str, torch.Tensor]
    threshold: float


@dataclass(frozen=True)
class Removal:
    """What goes or stays together: channels of a group, as indices of the base network, or the block `name` whole.

    `inside` are the channels that a block took with it, by group.
    """

    name: str
    channels: tuple[int, ...] = ()
    inside: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def count(self) -> int:
        """By how much the size under this name changes."""
        return len(self.channels) or 1


@dataclass(frozen=True)
class Shrunk:
    """A smaller architecture, and what it lacks of the one that the first step began with, in order of removal."""

    architecture: Architecture
    removed: tuple[Removal, ...]


def shrink_step(
    architecture: Architecture,
    ranking: Ranking,
    target: DeviceBudget,
    share: float,
    space: SearchSpace | None = None,
    earlier: Sequence[Removal] = (),
) -> Shrunk:
    """Remove the least valuable channels and blocks until `target` is met or the step's share is used up.

    Only channels whose removal lowers a violated resource are candidates. A channel's value is its importance divided
    by what it costs of the violated resources, each measured against what is still in excess. A step removes about
    `share` of each violated resource, and at most LARGEST_GROUP_SHARE of a group. If the result meets the target,
    putting back any one removal of this step or of those `earlier` ones would break it.
    """
    space = space or SearchSpace()
    description, work = architecture.description, _Work(architecture)
    sizes = work.sizes
    costs = start = description.costs(sizes)
    stop = _step_budget(start, target, share)
    limits = {
        group.name: max(space.least(group), int(sizes[group.name] * (1 - LARGEST_GROUP_SHARE)))
        for group in space.groups(description)
    }
    log = list(earlier)
    for removal in _order(architecture, ranking, target, start, space):
        violated = stop.violated(costs)
        if not violated:
            break
        if sizes[removal.name] - removal.count < limits.get(removal.name, 0):
            continue
        if not _helps(description, sizes, removal.name, violated, stop):
            continue
        log.append(work.take(removal))
        costs = description.costs(sizes)
    if target.admits(costs):
        log = _put_back(work, log, target)
    return Shrunk(work.result(), tuple(log))


def steps_between(costs: Costs, target: DeviceBudget, share: float) -> int:
    """How many steps that each remove `share` of a violated resource lead from `costs` to the target.

    A resource of which `costs` takes just the bound is violated, and takes one.

    >>> steps_between(Costs(100, 100, 400), DeviceBudget(macs=26), 0.5)
    2
    """
    left = [target.bound(resource) / target.amount(costs, resource) for resource in target.violated(costs)]
    return max((max(1, math.ceil(math.log(one) / math.log(1 - share))) if share < 1 else 1 for one in left), default=0)


class _Work:
    """An architecture on its way to a smaller one; a block has size 1, or 0 once it has vanished."""

    def __init__(self, architecture: Architecture) -> None:
        self.base, self.description = architecture.base, architecture.description
        self.kept = {name: set(indices) for name, indices in architecture.indices.items()}
        self.sizes = _sizes(architecture)

    def take(self, removal: Removal) -> Removal:
        """Remove it; the result knows what a block took with it."""
        block = self.description.block_by_name.get(removal.name)
        if block is None:
            self._drop(removal.name, removal.channels)
            return removal
        removal = replace(removal, inside=tuple((group, tuple(sorted(self.kept[group]))) for group in block.groups))
        self.sizes[removal.name] = 0
        for group, channels in removal.inside:
            self._drop(group, channels)
        return removal

    def give_back(self, removal: Removal) -> None:
        """The inverse of `take`."""
        if removal.name in self.description.block_by_name:
            self.sizes[removal.name] = 1
        for group, channels in (*removal.inside, (removal.name, removal.channels)):
            if channels:
                self.kept[group] |= set(channels)
                self.sizes[group] = len(self.kept[group])

    def result(self) -> Architecture:
        """What is left."""
        removed = [block.name for block in self.description.blocks if self.sizes[block.name] == 0]
        kept = {name: sorted(channels) for name, channels in self.kept.items()}
        return Architecture.with_kept(self.base, kept, removed)

    def _drop(self, group: str, channels: Sequence[int]) -> None:
        self.kept[group] -= set(channels)
        self.sizes[group] = len(self.kept[group])


def _sizes(architecture: Architecture) -> dict[str, int]:
    """Channels of every group and 1 or 0 for every block."""
    blocks = {block.name: int(block.name not in architecture.removed) for block in architecture.description.blocks}
    return {**architecture.sizes, **blocks}


def _step_budget(costs: Costs, target: DeviceBudget, share: float) -> DeviceBudget:
    """The target, or what is left of each resource after a step of `share` where that is looser."""
    bounds = {r: max(target.bound(r), target.amount(costs, r) * (1 - share)) for r in BOUNDED}
    latency = target.latency and target.latency.loosened(bounds.pop("latency"))
    counts = {r: None if bound == float("inf") else max(1, int(bound)) for r, bound in bounds.items() if r != "latency"}
    return DeviceBudget(**counts, latency=latency, training=target.training)


_Row: TypeAlias = tuple[bool, float, str, int, tuple[int, ...]]
"""Whether a removal hurts, its value, whose it is, which of that group's it is, and the channels that go."""


def _order(
    architecture: Architecture, ranking: Ranking, target: DeviceBudget, costs: Costs, space: SearchSpace
) -> list[Removal]:
    """Everything that may be removed, least valuable first."""
    description, sizes = architecture.description, _sizes(architecture)
    violated = target.violated(costs)
    rows: list[_Row] = []
    for group in space.groups(description):
        if sizes[group.name] <= space.least(group):
            continue
        price = _price(description, sizes, group.name, costs, target, violated)
        gates, importance = ranking.gate[group.name].tolist(), ranking.importance[group.name].tolist()
        channels = sorted(
            (gate > ranking.threshold, gate if gate <= ranking.threshold else worth / price, channel)
            for channel, gate, worth in zip(architecture.indices[group.name], gates, importance, strict=True)
        )
        rows += _bundles(group.name, channels, space)
    for block in space.blocks(description):
        if sizes[block.name]:
            price = _price(description, sizes, block.name, costs, target, violated)
            gate, worth = float(ranking.gate[block.name]), float(ranking.importance[block.name])
            closed = gate <= ranking.threshold
            rows.append((not closed, gate if closed else worth / price, block.name, 0, ()))
    return [Removal(name, channels) for _, _, name, _, channels in sorted(rows)]


def _bundles(name: str, channels: Sequence[tuple[bool, float, int]], space: SearchSpace) -> list[_Row]:
    """Channels, least valuable first, put together so that each bundle leaves an allowed number; its mean value."""
    rows: list[_Row] = []
    left, before = list(channels), (False, float("-inf"))
    while left:
        count = len(left) - space.next_size(len(left))
        bundle, left = left[:count], left[count:]
        value = (any(is_open for is_open, _, _ in bundle), sum(value for _, value, _ in bundle) / count)
        before = max(before, value)  # a group gives up its bundles in this order
        rows.append((*before, name, len(rows), tuple(sorted(channel for _, _, channel in bundle))))
    return rows


def _price(
    description: Description,
    sizes: Mapping[str, int],
    name: str,
    costs: Costs,
    target: DeviceBudget,
    violated: list[str],
) -> float:
    """What a channel of a group, or a block, costs of the violated resources, as shares of what is in excess."""
    without = description.costs({**sizes, name: sizes[name] - 1})
    price = 0.0
    for resource in violated:
        amount = target.amount(costs, resource)
        saved = amount - target.amount(without, resource)
        if resource == "peak_memory_bytes":
            saved = BYTES_PER_VALUE * _largest_part(description, sizes, name)
        unit = 1e-9 if resource == "latency" else 1  # the bound itself is too much
        price += saved / (amount - target.bound(resource) + unit)
    return max(price, 1e-12)


def _largest_part(description: Description, sizes: Mapping[str, int], name: str) -> int:
    """The most entries that a channel of the group, or the block, has alive at any step."""
    if name in description.block_by_name:
        return max(sum(step.elements(sizes)) for step in description.steps if step.block == name)
    return max(step.entries(name) for step in description.steps)


def _helps(
    description: Description, sizes: Mapping[str, int], name: str, violated: list[str], stop: DeviceBudget
) -> bool:
    """Whether it counts against a violated resource: memory is held only at steps above the bound."""
    if violated != ["peak_memory_bytes"]:
        return True
    live = description.live_elements(sizes)
    return any(
        BYTES_PER_VALUE * elements >= stop.bound("peak_memory_bytes") and (step.entries(name) > 0 or step.block == name)
        for step, elements in zip(description.steps, live, strict=True)
    )


def _put_back(work: _Work, log: Sequence[Removal], target: DeviceBudget) -> list[Removal]:
    """Restore what was removed, the latest first, as long as the target holds; returns what stays removed.

    Of one group, only the latest removal can come back, for the sizes between are not all allowed; and what was inside
    a block only with the block.
    """
    gone: list[Removal] = []
    final: set[str] = set()
    for removal in reversed(log):
        if removal.name not in final:
            work.give_back(removal)
            if target.admits(work.description.costs(work.sizes)):
                continue
            work.take(removal)
        final |= {removal.name, *(group for group, _ in removal.inside)}
        gone.append(removal)
    return gone[::-1]
