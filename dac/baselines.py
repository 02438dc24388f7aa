"""What DAC is measured against: simpler ways to an architecture within the same budget.

`width_multiplier` scales the layers of our own networks alike (Howard et al. 2017, arXiv:1704.04861, section 3.3), as
published: in multiples of 8, the head at its full width. `uniform` scales every channel group of any network, the head
included, to the channel. `random_widths` draws the widths that DAC learns, `magnitude` removes channels of a trained
network with the smallest weights (Li et al. 2017, arXiv:1608.08710), `slimming` those with the smallest batch-norm
scale after training with an L1 penalty on it (Liu et al. 2017, arXiv:1708.06519). The last three remove channels by the
very code that DAC uses, importance per cost down to the last channel that fits, so that only the importance differs.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from fractions import Fraction

import torch
from torch import nn

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError, BudgetError
from common.layout import State
from common.models import describe
from common.models.description import BaseNetwork, ChannelGroup, Description
from common.models.networks import factory_of
from common.search_space import SearchSpace
from common.seeds import numpy_generator, torch_generator
from common.slicing import slice_state
from dac.plan import check_feasible, needs
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

    # costs grow with the width, so the first that is too large is found by halving
    steps = range(1, round(1 / WIDTH_STEP) + 1)
    count = bisect_left(steps, True, key=lambda step: not budget.admits(at(step).costs))
    if count == 0:
        raise BudgetError(
            f"no width multiplier of {base.model} fits a budget {budget}: at {WIDTH_STEP:g} it still has "
            f"{needs(at(1).costs, budget)}; raise the budget"
        )
    return at(steps[count - 1])


def uniform(base: BaseNetwork, budget: DeviceBudget, removed: Collection[str] = ()) -> Architecture:
    """The first ceil(w * size) channels of every group that can be reduced, for the largest w that fits.

    The blocks `removed` are left out, for a shallower network. Raises BudgetError if not even one channel of each fits.
    """
    reducible = describe(base).reducible
    rates = sorted({Fraction(kept, group.size) for group in reducible for kept in range(1, group.size + 1)})

    def at(rate: Fraction) -> Architecture:
        kept = {one.name: range(math.ceil(rate * one.size)) for one in reducible}
        return Architecture.with_kept(base, kept, removed)

    # costs grow with the rate, so the first that is too large is found by halving
    count = bisect_left(rates, True, key=lambda rate: not budget.admits(at(rate).costs))
    if count == 0:
        costs = at(rates[0]).costs
        raise BudgetError(
            f"no uniform {base.model} fits a budget {budget}: with one channel in each group it still has "
            f"{costs.macs:,} MACs, {costs.params:,} parameters and {costs.peak_memory_bytes:,} bytes of peak memory"
        )
    return at(rates[count - 1])


def random_widths(base: BaseNetwork, budget: DeviceBudget, seed: int, space: SearchSpace | None = None) -> Architecture:
    """Random channel counts between the floor and the base network's, random channels, as large as the budget allows.

    Each group of the search space (`inner` if none is given) draws u uniform in (0, 1) and keeps u ** t of what it has
    above its floor; the exponent t is the largest that leaves too much, and random channels then go until the budget
    is met. No block vanishes. Raises BudgetError for a budget below the floor.
    """
    space = _without_blocks(space)
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


def magnitude(
    architecture: Architecture, state: State, budget: DeviceBudget, space: SearchSpace | None = None
) -> tuple[Architecture, State]:
    """`architecture` without its channels of smallest L1 norm, and the weights in `state` of those that stay.

    A channel's norm counts every convolution or linear weight that writes or reads it. Channels of every group of the
    search space may go (`inner` if none is given), but no block. Raises BudgetError for a budget below the floor.
    """
    space = _without_blocks(space)
    return _pruned(architecture, state, weight_norms(architecture, state, space), budget, space)


def slimming(
    architecture: Architecture, state: State, budget: DeviceBudget, space: SearchSpace | None = None
) -> tuple[Architecture, State]:
    """`architecture` without its channels of smallest batch-norm scale, and the weights of those that stay.

    Where several batch norms scale one group (at the ends of a residual stage), their scales are summed; of the two
    inside a block the last counts. `state` should come from training with `slimming_penalty`. Channels of every group
    of the search space may go (`inner` if none is given), but no block. Raises ArchitectureError for a network without
    batch norms and BudgetError for a budget below the floor.
    """
    space = _without_blocks(space)
    norms = _norms(architecture.description, space)
    scales = {
        group: torch.stack([state[f"{norm}.weight"].abs() for norm in names]).sum(0) for group, names in norms.items()
    }
    return _pruned(architecture, state, scales, budget, space)


def slimming_penalty(
    architecture: Architecture, strength: float, space: SearchSpace | None = None
) -> Callable[[nn.Module], torch.Tensor]:
    """`strength` times the L1 norm of the scales that `slimming` ranks by, as a function of the module."""
    norms = _norms(architecture.description, _without_blocks(space))
    names = [f"{norm}.weight" for group in norms.values() for norm in group]

    def penalty(module: nn.Module) -> torch.Tensor:
        return strength * torch.stack([module.get_parameter(name).abs().sum() for name in names]).sum()

    return penalty


def weight_norms(
    architecture: Architecture, state: Mapping[str, torch.Tensor], space: SearchSpace | None = None
) -> dict[str, torch.Tensor]:
    """The L1 norm of the weights that write or read each channel, per group of the space; shapes (kept channels,)."""
    description = architecture.description
    groups = _without_blocks(space).groups(description)
    norms = {group.name: torch.zeros(architecture.sizes[group.name]) for group in groups}
    for layer in description.layers:
        if layer.kind in ("batch_norm", "other"):
            continue
        weight = state[f"{layer.name}.weight"].abs()
        written = weight.flatten(1).sum(1)
        read = weight.transpose(0, 1).flatten(1).sum(1)
        for dimension, sums in ((layer.target, written), (layer.source if layer.mixes else (), read)):
            lengths = [architecture.sizes[axis.group] * axis.spread for axis in dimension]
            for axis, part in zip(dimension, torch.split(sums, lengths) if lengths else (), strict=True):
                if axis.group in norms:
                    norms[axis.group] += part.reshape(-1, axis.spread).sum(1)
    return norms


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


def _pruned(
    architecture: Architecture,
    state: State,
    importance: Mapping[str, torch.Tensor],
    budget: DeviceBudget,
    space: SearchSpace,
) -> tuple[Architecture, State]:
    check_feasible(architecture.base, [budget], space)
    spread = {}
    for name, values in importance.items():
        spread[name] = torch.zeros(architecture.description.full_sizes[name])
        spread[name][list(architecture.indices[name])] = values.detach().cpu()
    smaller = shrink_to(architecture, spread, budget, space)
    return smaller, slice_state(state, architecture, smaller)


def _without_blocks(space: SearchSpace | None) -> SearchSpace:
    """The same groups, for what has no measure of a block's worth."""
    space = space or SearchSpace()
    return replace(space, kind="uniform") if space.kind == "all" else space


def _norms(description: Description, space: SearchSpace) -> dict[str, list[str]]:
    """The batch norms whose scales rank a group: of groups inside a block the last, the depthwise convolution's."""
    norms: dict[str, list[str]] = {}
    for layer in description.layers:
        if layer.kind == "batch_norm" and len(layer.target) == 1:
            norms.setdefault(layer.target[0].group, []).append(layer.name)
    groups = space.groups(description)
    missing = [group.name for group in groups if group.name not in norms]
    if missing:
        raise ArchitectureError(f"slimming ranks channels by batch norm, and {missing[0]} has none; use mobilenet_v2")
    return {group.name: norms[group.name][-1:] if group.prunable else norms[group.name] for group in groups}
