"""Removing channels, one at a time, until a target is met (DAC paper, algorithm 1)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from common.architecture import Architecture
from common.budget import RESOURCES, Costs, DeviceBudget
from common.models.description import BYTES_PER_VALUE, Description

LARGEST_GROUP_SHARE = 0.5  # of a group's channels that one step may remove


@dataclass(frozen=True)
class Ranking:
    """How a channel's worth is judged: per group, one value for each channel the architecture keeps, in its order.

    `importance` is weighed against cost; channels whose gate is at or below `threshold` go before all others,
    smallest gate first, as the paper has it.
    """

    importance: Mapping[str, torch.Tensor]
    gate: Mapping[str, torch.Tensor]
    threshold: float


def shrink_step(architecture: Architecture, ranking: Ranking, target: DeviceBudget, share: float) -> Architecture:
    """Remove the least valuable channels until `target` is met or the step's share is used up.

    Only channels whose removal lowers a violated resource are candidates. A channel's value is its importance divided
    by what it costs of the violated resources, each measured against what is still in excess. A step removes about
    `share` of each violated resource, and at most LARGEST_GROUP_SHARE of a group. If the result meets the target,
    putting back any one channel of this step would break it.
    """
    description = architecture.description
    sizes = dict(architecture.sizes)
    start = description.costs(sizes)
    stop = _step_budget(start, target, share)
    limits = {g.name: max(g.floor, int(sizes[g.name] * (1 - LARGEST_GROUP_SHARE))) for g in description.prunable}
    removed: list[tuple[str, int]] = []
    costs = start
    for group, channel in _order(architecture, ranking, target, start):
        violated = stop.violated(costs)
        if not violated:
            break
        if sizes[group] <= limits[group] or not _helps(description, sizes, group, violated, stop):
            continue
        sizes[group] -= 1
        removed.append((group, channel))
        costs = description.costs(sizes)
    if target.admits(costs):
        removed = _put_back(description, sizes, removed, target)
    return _without(architecture, removed)


def _step_budget(costs: Costs, target: DeviceBudget, share: float) -> DeviceBudget:
    """The target, or what is left of each resource after a step of `share` where that is looser."""
    bounds = [max(target.bound(r), costs.get(r) * (1 - share)) for r in RESOURCES]
    return DeviceBudget(*(None if bound == float("inf") else max(1, int(bound)) for bound in bounds))


def _order(architecture: Architecture, ranking: Ranking, target: DeviceBudget, costs: Costs) -> list[tuple[str, int]]:
    """Every prunable channel as (group, index in the base), least valuable first."""
    description, sizes = architecture.description, architecture.sizes
    violated = target.violated(costs)
    rows: list[tuple[bool, float, str, int]] = []
    for group in description.prunable:
        price = _price(description, sizes, group.name, costs, target, violated)
        gates, importance = ranking.gate[group.name].tolist(), ranking.importance[group.name].tolist()
        for channel, gate, worth in zip(architecture.indices[group.name], gates, importance, strict=True):
            closed = gate <= ranking.threshold
            rows.append((not closed, gate if closed else worth / price, group.name, channel))
    return [(name, channel) for _, _, name, channel in sorted(rows)]


def _price(
    description: Description,
    sizes: Mapping[str, int],
    group: str,
    costs: Costs,
    target: DeviceBudget,
    violated: list[str],
) -> float:
    """What one channel of `group` costs of the violated resources, as a share of what is in excess of the target."""
    without = description.costs({**sizes, group: sizes[group] - 1})
    price = 0.0
    for resource in violated:
        saved = costs.get(resource) - without.get(resource)
        if resource == "peak_memory_bytes":
            saved = BYTES_PER_VALUE * max(step.entries(group) for step in description.steps)
        price += saved / (costs.get(resource) - target.bound(resource) + 1)
    return max(price, 1e-12)


def _helps(
    description: Description, sizes: Mapping[str, int], group: str, violated: list[str], stop: DeviceBudget
) -> bool:
    """Whether a channel of `group` counts against a violated resource: memory is held only at steps above the bound."""
    if violated != ["peak_memory_bytes"]:
        return True
    live = description.live_elements(sizes)
    return any(
        BYTES_PER_VALUE * elements >= stop.bound("peak_memory_bytes") and step.entries(group) > 0
        for step, elements in zip(description.steps, live, strict=True)
    )


def _put_back(
    description: Description, sizes: dict[str, int], removed: list[tuple[str, int]], target: DeviceBudget
) -> list[tuple[str, int]]:
    """Restore channels, the most valuable first, as long as the target holds; returns those that stay removed."""
    gone: list[tuple[str, int]] = []
    for group, channel in reversed(removed):
        sizes[group] += 1
        if not target.admits(description.costs(sizes)):
            sizes[group] -= 1
            gone.append((group, channel))
    return gone


def _without(architecture: Architecture, removed: list[tuple[str, int]]) -> Architecture:
    gone = set(removed)
    kept = {
        group.name: [c for c in architecture.indices[group.name] if (group.name, c) not in gone]
        for group in architecture.description.groups
    }
    return Architecture.with_kept(architecture.base, kept)
