"""What DAC is measured against: simpler ways to an architecture within the same budget.

`width_multiplier` scales the layers of our own networks alike (Howard et al. 2017, arXiv:1704.04861, section 3.3), as
published: in multiples of 8, the head at its full width. `random_widths` draws the widths that DAC learns. Scaling of
any network, the head included, is `dac.scaling.uniform`, which the search has as a recipe too. What begins with a
trained network is in `dac.pruning`.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError, BudgetError
from common.models.description import BaseNetwork, ChannelGroup
from common.models.networks import factory_of
from common.search_space import SearchSpace
from common.seeds import numpy_generator, torch_generator
from dac.plan import check_feasible, needs
from dac.scaling import admitted
from dac.shrink import Ranking, shrink_step

WIDTH_STEP = 0.001  # finer than any step that changes a channel count of MobileNetV2
STEP_SHARE = 0.1  # small, because which resource is in excess, and so the price of a channel, changes on the way


def width_multiplier(base: BaseNetwork, budget: DeviceBudget) -> Architecture:
    """The full network of the largest width multiplier that fits; it has a base network of its own.

    Widths are multiples of WIDTH_STEP times the width of `base`. Raises BudgetError if none fits, and ArchitectureError
    for a network that is not one of ours, for it has no such multiplier.
    """
    if factory_of(base).foreign:
        raise ArchitectureError(f"{base.model} has no width multiplier; the baseline `uniform` narrows any network")

    def at(step: int) -> Architecture:
        return Architecture.full(replace(base, width=base.width * (step * WIDTH_STEP)))

    steps = range(1, round(1 / WIDTH_STEP) + 1)
    count = admitted(steps, lambda step: at(step).costs, budget)
    if count == 0:
        raise BudgetError(
            f"no width multiplier of {base.model} fits a budget {budget}: at {WIDTH_STEP:g} it still has "
            f"{needs(at(1).costs, budget)}; raise the budget"
        )
    return at(steps[count - 1])


def random_widths(base: BaseNetwork, budget: DeviceBudget, seed: int, space: SearchSpace | None = None) -> Architecture:
    """Random channel counts between the floor and the base network's, random channels, as large as the budget allows.

    Each group of the search space (`inner` if none is given) draws u uniform in (0, 1) and keeps u ** t of what it has
    above its floor; the exponent t is the largest that leaves too much, and random channels then go until the budget
    is met. No block vanishes. Raises BudgetError for a budget below the floor.
    """
    space = without_blocks(space)
    check_feasible(base, [budget], space)
    full = Architecture.full(base)
    description = full.description
    if budget.admits(full.costs):
        return full
    generator = numpy_generator(seed, "random-widths")
    groups = space.groups(description)
    draws = {group.name: float(generator.uniform(0.02, 0.98)) for group in groups}

    def drawn(group: ChannelGroup, exponent: float) -> int:
        least = space.least(group)
        kept: int = round((group.size - least) * draws[group.name] ** exponent)
        return least + kept

    def sizes(exponent: float) -> dict[str, int]:
        return {**description.full_sizes, **{group.name: drawn(group, exponent) for group in groups}}

    too_large, fits = 0.0, 1e4
    for _ in range(60):
        middle = (too_large + fits) / 2
        if budget.admits(description.costs(sizes(middle))):
            fits = middle
        else:
            too_large = middle
    order = {group.name: torch.rand(group.size, generator=torch_generator(seed, group.name)) for group in groups}
    chosen = sizes(too_large)
    kept = {name: sorted(values.argsort(descending=True)[: chosen[name]].tolist()) for name, values in order.items()}
    return shrink_to(Architecture.with_kept(base, kept), order, budget, space)


def shrink_to(
    architecture: Architecture, importance: Mapping[str, torch.Tensor], budget: DeviceBudget, space: SearchSpace
) -> Architecture:
    """Remove the channels of least importance per cost until the budget is met.

    `importance` has one value for each channel of the base network's groups in the search space.
    """
    while not budget.admits(architecture.costs):
        kept = {name: values[list(architecture.indices[name])] for name, values in importance.items()}
        gates = {name: torch.ones(len(values)) for name, values in kept.items()}
        ranking = Ranking(kept, gates, threshold=0.0)
        architecture = shrink_step(architecture, ranking, budget, STEP_SHARE, space).architecture
    return architecture


def without_blocks(space: SearchSpace | None) -> SearchSpace:
    """The same groups, for what has no measure of a block's worth."""
    space = space or SearchSpace()
    return replace(space, kind="uniform") if space.kind == "all" else space
