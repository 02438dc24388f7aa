"""Which budgets one shrinking trajectory can serve, and where it must branch.

A trajectory heads for the *join* of the budgets it still has to serve: the tightest bounds that are as loose as all of
them. Where the join is one of the budgets, reaching it serves that budget and the trajectory goes on to the next. Where
it is not, two budgets bind on different resources, and the trajectory forks.
"""

from collections.abc import Sequence
from functools import reduce

from common.budget import RESOURCES, Costs, DeviceBudget
from common.errors import BudgetError
from common.models import describe
from common.models.description import BaseNetwork
from common.search_space import SearchSpace


def check_feasible(base: BaseNetwork, budgets: Sequence[DeviceBudget], space: SearchSpace | None = None) -> None:
    """Raise BudgetError for the first budget that even the smallest architecture breaks, naming that floor.

    The search space is `inner` where none is given.
    """
    floor = floor_costs(base, space or SearchSpace())
    for budget in budgets:
        if not budget.admits(floor):
            raise BudgetError(
                f"no architecture fits a budget {budget}: the smallest {base.model} for {base.input_shape} needs "
                f"{needs(floor, budget)}; raise the budget, or lower --width or raise --strides"
            )


def floor_costs(base: BaseNetwork, space: SearchSpace) -> Costs:
    """What the smallest architecture of the search space needs."""
    description = describe(base)
    return description.costs(space.floor_sizes(description))


def needs(costs: Costs, budget: DeviceBudget) -> str:
    """What an architecture needs, in words: with training memory and latency where the budget bounds them."""
    words = str(costs)
    if budget.training_memory_bytes is not None:
        words += f", {costs.training_memory_bytes(budget.training):,} bytes to train"
    if budget.latency is not None:
        words += f", {budget.latency_ms(costs):.3g} ms"
    return words


def clipped(budget: DeviceBudget, full: Costs) -> DeviceBudget:
    """The budget with bounds that cannot bind replaced by the loosest that matter.

    Of what all devices need alike, that is one above the full network's; others are left out.
    """
    counts = {resource: int(min(budget.bound(resource), full.get(resource) + 1)) for resource in RESOURCES}
    violated = budget.violated(full)
    training = budget.training_memory_bytes if "training_memory_bytes" in violated else None
    latency = budget.latency if "latency" in violated else None
    return DeviceBudget(**counts, training_memory_bytes=training, latency=latency, training=budget.training)


def join(budgets: Sequence[DeviceBudget]) -> DeviceBudget:
    """The tightest budget that is as loose as every one of `budgets`."""
    return reduce(DeviceBudget.join, budgets)


def fork(budgets: Sequence[DeviceBudget]) -> tuple[list[int], list[int]]:
    """Split budgets of which none equals their join: the loosest (in MACs first) with all within it, and the rest.

    Returns positions in `budgets`; both lists are non-empty, and the join of the first is its loosest budget.
    """
    loosest = max(budgets, key=DeviceBudget.looseness)
    within = [position for position, budget in enumerate(budgets) if budget.within(loosest)]
    return within, [position for position in range(len(budgets)) if position not in within]
