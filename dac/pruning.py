"""What DAC is measured against where a network was trained before: its channels of least worth go, to meet a budget.

`magnitude` (Li et al. 2017, arXiv:1608.08710) takes the same share from every layer, those channels with the smallest
weights; `slimming` (Liu et al. 2017, arXiv:1708.06519) takes what has the smallest batch-norm scales of the whole
network, after training with an L1 penalty on them. Both keep the weights of what stays.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

import torch
from torch import nn

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError
from common.layout import State
from common.models.description import Description
from common.search_space import SearchSpace
from common.slicing import slice_state
from dac.baselines import without_blocks
from dac.plan import check_feasible
from dac.scaling import admitted, shares_of


def magnitude(
    architecture: Architecture, state: State, budget: DeviceBudget, space: SearchSpace | None = None
) -> tuple[Architecture, State]:
    """`architecture` with the largest equal share of every group that fits, and the weights in `state` of what stays.

    Of a group the channels of largest L1 norm stay, which counts every convolution or linear weight that writes or
    reads a channel. Channels of every group of the search space may go (`inner` if none is given), down to its floor,
    but no block. Raises BudgetError for a budget below the floor.
    """
    space = without_blocks(space)
    check_feasible(architecture.base, [budget], space)
    ranked = _ranked(architecture, weight_norms(architecture, state, space))
    shares = shares_of(len(order) for order in ranked.values())

    def at(share: Fraction) -> Architecture:
        counts = {name: math.ceil(share * len(order)) for name, order in ranked.items()}
        return _first(architecture, space, ranked, counts)

    smaller = at(shares[max(0, admitted(shares, lambda share: at(share).costs, budget) - 1)])
    return smaller, slice_state(state, architecture, smaller)


def slimming(
    architecture: Architecture, state: State, budget: DeviceBudget, space: SearchSpace | None = None
) -> tuple[Architecture, State]:
    """`architecture` without its channels of smallest batch-norm scale, and the weights in `state` of those that stay.

    One threshold for the whole network, the least that fits (section 3.2 of the paper). Where several batch norms scale
    one group (at the ends of a residual stage), it is their mean; of the two inside a block the last counts. `state`
    should come from training with `slimming_penalty`. Channels of every group of the search space may go (`inner` if
    none is given), down to its floor, but no block. Raises ArchitectureError for a network without batch norms and
    BudgetError for a budget below the floor.
    """
    space = without_blocks(space)
    check_feasible(architecture.base, [budget], space)
    scales = {
        group: torch.stack([state[f"{norm}.weight"].abs() for norm in names]).mean(0)
        for group, names in _norms(architecture.description, space).items()
    }
    ranked = _ranked(architecture, scales)
    # as costs grow with what stays, from the largest threshold, above which is nothing, to the smallest
    thresholds = [math.inf, *sorted({value for values in scales.values() for value in values.tolist()}, reverse=True)]

    def at(threshold: float) -> Architecture:
        above = {name: int((values >= threshold).sum()) for name, values in scales.items()}
        return _first(architecture, space, ranked, above)

    smaller = at(thresholds[max(0, admitted(thresholds, lambda one: at(one).costs, budget) - 1)])
    return smaller, slice_state(state, architecture, smaller)


def slimming_penalty(
    architecture: Architecture, strength: float, space: SearchSpace | None = None
) -> Callable[[nn.Module], torch.Tensor]:
    """`strength` times the L1 norm of the scales that `slimming` ranks by, as a function of the module."""
    norms = _norms(architecture.description, without_blocks(space))
    names = [f"{norm}.weight" for group in norms.values() for norm in group]

    def penalty(module: nn.Module) -> torch.Tensor:
        return strength * torch.stack([module.get_parameter(name).abs().sum() for name in names]).sum()

    return penalty


def weight_norms(
    architecture: Architecture, state: Mapping[str, torch.Tensor], space: SearchSpace | None = None
) -> dict[str, torch.Tensor]:
    """The L1 norm of the weights that write or read each channel, per group of the space; shapes (kept channels,)."""
    description = architecture.description
    groups = without_blocks(space).groups(description)
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


def _ranked(architecture: Architecture, worth: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    """The channels that each group keeps, by their indices in the base network, the most worth first."""
    return {
        name: [architecture.indices[name][place] for place in values.argsort(descending=True, stable=True).tolist()]
        for name, values in worth.items()
        if len(values)
    }


def _first(
    architecture: Architecture, space: SearchSpace, ranked: Mapping[str, list[int]], counts: Mapping[str, int]
) -> Architecture:
    """The architecture with the first `counts` channels of every ranked group, and at least the space's floor."""
    least = {group.name: space.least(group) for group in space.groups(architecture.description)}
    kept = {name: sorted(order[: max(counts[name], least[name])]) for name, order in ranked.items()}
    return Architecture.with_kept(architecture.base, {**architecture.indices, **kept}, architecture.removed)


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
