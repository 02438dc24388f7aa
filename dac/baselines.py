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
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

import torch
from torch import nn

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError, BudgetError
from common.layout import State
from common.models import describe
from common.models.description import BaseNetwork, Description
from common.models.networks import factory_of
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


def uniform(base: BaseNetwork, budget: DeviceBudget) -> Architecture:
    """The first ceil(w * size) channels of every group that can be reduced, for the largest w that fits.

    Raises BudgetError if not even one channel of each fits.
    """
    reducible = describe(base).reducible
    rates = sorted({Fraction(kept, group.size) for group in reducible for kept in range(1, group.size + 1)})

    def at(rate: Fraction) -> Architecture:
        return Architecture.with_kept(base, {one.name: range(math.ceil(rate * one.size)) for one in reducible})

    # costs grow with the rate, so the first that is too large is found by halving
    count = bisect_left(rates, True, key=lambda rate: not budget.admits(at(rate).costs))
    if count == 0:
        costs = at(rates[0]).costs
        raise BudgetError(
            f"no uniform {base.model} fits a budget {budget}: with one channel in each group it still has "
            f"{costs.macs:,} MACs, {costs.params:,} parameters and {costs.peak_memory_bytes:,} bytes of peak memory"
        )
    return at(rates[count - 1])


def random_widths(base: BaseNetwork, budget: DeviceBudget, seed: int) -> Architecture:
    """Random channel counts between the floor and the base network's, random channels, as large as the budget allows.

    Each prunable group draws u uniform in (0, 1) and keeps u ** t of what it has above its floor; the exponent t is
    the largest that leaves too much, and random channels then go until the budget is met. Raises BudgetError for a
    budget below the floor.
    """
    check_feasible(base, [budget])
    full = Architecture.full(base)
    description = full.description
    if budget.admits(full.costs):
        return full
    generator = numpy_generator(seed, "random-widths")
    draws = {group.name: float(generator.uniform(0.02, 0.98)) for group in description.prunable}

    def sizes(exponent: float) -> dict[str, int]:
        drawn = {g.name: g.floor + round((g.size - g.floor) * draws[g.name] ** exponent) for g in description.prunable}
        return {**description.full_sizes, **drawn}

    too_large, fits = 0.0, 1e4
    for _ in range(60):
        middle = (too_large + fits) / 2
        if budget.admits(description.costs(sizes(middle))):
            fits = middle
        else:
            too_large = middle
    order = {
        group.name: torch.rand(group.size, generator=torch_generator(seed, group.name))
        for group in full.description.prunable
    }
    chosen = sizes(too_large)
    kept = {name: sorted(values.argsort(descending=True)[: chosen[name]].tolist()) for name, values in order.items()}
    return shrink_to(Architecture.with_kept(base, kept), order, budget)


def magnitude(architecture: Architecture, state: State, budget: DeviceBudget) -> tuple[Architecture, State]:
    """`architecture` without its channels of smallest L1 norm, and the weights in `state` of those that stay.

    A channel's norm counts every convolution or linear weight that writes or reads it. Raises BudgetError for a
    budget below the floor.
    """
    return _pruned(architecture, state, weight_norms(architecture, state), budget)


def slimming(architecture: Architecture, state: State, budget: DeviceBudget) -> tuple[Architecture, State]:
    """`architecture` without its channels of smallest batch-norm scale, and the weights of those that stay.

    `state` should come from training with `slimming_penalty`. Raises ArchitectureError for a network without batch
    norms and BudgetError for a budget below the floor.
    """
    scales = {group: state[f"{norm}.weight"].abs() for group, norm in _norms(architecture.description).items()}
    return _pruned(architecture, state, scales, budget)


def slimming_penalty(architecture: Architecture, strength: float) -> Callable[[nn.Module], torch.Tensor]:
    """`strength` times the L1 norm of the scales that `slimming` ranks by, as a function of the module."""
    names = [f"{norm}.weight" for norm in _norms(architecture.description).values()]

    def penalty(module: nn.Module) -> torch.Tensor:
        return strength * torch.stack([module.get_parameter(name).abs().sum() for name in names]).sum()

    return penalty


def weight_norms(architecture: Architecture, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Per prunable group, the L1 norm of the weights that write or read each channel; shapes (kept channels,)."""
    description = architecture.description
    norms = {group.name: torch.zeros(architecture.sizes[group.name]) for group in description.prunable}
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


def shrink_to(architecture: Architecture, importance: Mapping[str, torch.Tensor], budget: DeviceBudget) -> Architecture:
    """Remove the channels of least importance per cost until the budget is met.

    `importance` has one value for each channel of the base network's prunable groups.
    """
    while not budget.admits(architecture.costs):
        kept = {name: values[list(architecture.indices[name])] for name, values in importance.items()}
        gates = {name: torch.ones(len(values)) for name, values in kept.items()}
        architecture = shrink_step(architecture, Ranking(kept, gates, threshold=0.0), budget, STEP_SHARE).architecture
    return architecture


def _pruned(
    architecture: Architecture, state: State, importance: Mapping[str, torch.Tensor], budget: DeviceBudget
) -> tuple[Architecture, State]:
    check_feasible(architecture.base, [budget])
    spread = {}
    for name, values in importance.items():
        spread[name] = torch.zeros(architecture.description.full_sizes[name])
        spread[name][list(architecture.indices[name])] = values.detach().cpu()
    smaller = shrink_to(architecture, spread, budget)
    return smaller, slice_state(state, architecture, smaller)


def _norms(description: Description) -> dict[str, str]:
    """The last batch norm of every prunable group: that of the depthwise convolution."""
    norms = {
        axis.group: layer.name
        for layer in description.layers
        if layer.kind == "batch_norm" and len(layer.target) == 1
        for axis in layer.target
    }
    missing = [group.name for group in description.prunable if group.name not in norms]
    if missing:
        raise ArchitectureError(f"slimming ranks channels by batch norm, and {missing[0]} has none; use mobilenet_v2")
    return {group.name: norms[group.name] for group in description.prunable}
