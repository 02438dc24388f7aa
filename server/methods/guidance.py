"""AutoFLIP's guidance, and what of a network is removed by it (Interno et al. 2024, arXiv:2405.10271, and its program).

1. Guidance of a parameter: the mean over explorers of its squared displacement (w_explored - w_base)^2, then brought to
   one scale within its tensor (`normalised`).
2. Threshold: the quantile of the guidance of all parameters together at the share that is to go. What lies below goes,
   the lowest first (`parameters_kept`); of equal guidance the smaller weight, so that the share is met exactly also
   where many parameters did not move at all.
3. Guidance of a channel (the paper's hybrid promises structured removal, the program has none; the rule is ours): the
   mean guidance of the parameters that make it, brought to one scale within its group. Channels go, the lowest first,
   until the share of the network's parameters is gone (`channels_kept`).

Guided are weights and biases of convolutions and linear layers. Batch norms are not: their statistics are no
parameters, and a scale of zero would be a channel removed.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.architecture import Architecture
from common.arrays import Vector
from common.models.description import Tensor
from common.sparse import Kept

WEIGHTED = ("conv", "depthwise", "grouped", "linear")
"""The kinds of layers whose parameters are guided."""


def is_guided(architecture: Architecture) -> Kept:
    """Which of the architecture's weights are guided; shape (size,)."""
    return _repeated(architecture, lambda tensor: tensor.trainable and _kind(architecture, tensor) in WEIGHTED)


def is_trainable(architecture: Architecture) -> Kept:
    """Which of the architecture's weights are parameters, not statistics; shape (size,)."""
    return _repeated(architecture, lambda tensor: tensor.trainable)


def normalised(architecture: Architecture, displacement: Vector, how: str) -> Vector:
    """Mean squared displacement, shape (size,), on one scale within each tensor.

    `how` is min-max, (x - min) / (max - min), or robust, (x - median) / (third - first quartile). A tensor whose values
    are all the same has guidance 1 if it moved, else 0; one whose quartiles are equal is divided by 1, as
    scikit-learn's RobustScaler does.
    """
    parts = np.split(displacement.astype(np.float64), _ends(architecture))
    scale = {"min-max": _min_max, "robust": _robust}[how]
    return np.concatenate([scale(part) if part.size else part for part in parts]).astype(np.float32)


def parameters_kept(architecture: Architecture, guidance: Vector, weights: Vector, remove: int) -> Kept:
    """Which weights are kept when the `remove` guided ones of the lowest guidance go; all of shape (size,)."""
    guided = np.flatnonzero(is_guided(architecture))
    order = np.lexsort((np.abs(weights[guided]), guidance[guided]))
    kept = np.ones(len(weights), np.bool_)
    kept[guided[order[: max(0, remove)]]] = False
    return kept


def channels_kept(architecture: Architecture, guidance: Vector, share: float, floor: int) -> Architecture:
    """The architecture without the channels of the lowest guidance, so that `share` of its parameters are gone.

    As few channels as that takes; every group keeps `floor` of them, or all it has if these are fewer, so less is
    removed where that allows no more.
    """
    candidates = _removable(architecture, channel_guidance(architecture, guidance), floor)
    wanted = (1 - share) * architecture.costs.params
    first = range(len(candidates))
    fewest = bisect_left(first, True, key=lambda some: _without(architecture, candidates[:some]).costs.params <= wanted)
    return _without(architecture, candidates[:fewest])


def channel_guidance(architecture: Architecture, guidance: Vector) -> dict[str, NDArray[np.float64]]:
    """For each group that can be reduced, by name, the guidance of the channels it has; shape (channels,)."""
    sums = {group.name: np.zeros(architecture.sizes[group.name]) for group in architecture.description.reducible}
    counts = {name: np.zeros(len(values)) for name, values in sums.items()}
    for tensor, part in zip(_tensors(architecture), np.split(guidance, _ends(architecture)), strict=True):
        if not tensor.trainable or _kind(architecture, tensor) not in WEIGHTED or not tensor.dimensions[0]:
            continue
        rows = part.astype(np.float64).reshape(sum(_lengths(architecture, tensor)), -1)
        starts = np.cumsum(_lengths(architecture, tensor))[:-1]
        for axis, stretch in zip(tensor.dimensions[0], np.split(rows, starts), strict=True):
            if axis.group in sums:
                channels = stretch.reshape(architecture.sizes[axis.group], -1)
                sums[axis.group] += channels.sum(axis=1)
                counts[axis.group] += channels.shape[1]
    found = {name: values / np.maximum(counts[name], 1) for name, values in sums.items() if len(values)}
    return {name: _min_max(values) for name, values in found.items()}


def _removable(
    architecture: Architecture, guidance: dict[str, NDArray[np.float64]], floor: int
) -> list[tuple[str, int]]:
    """(group, position of the channel) of all that may go, the lowest guidance first."""
    left = {name: len(values) - min(len(values), floor) for name, values in guidance.items()}
    ranked = sorted((value, name, place) for name, values in guidance.items() for place, value in enumerate(values))
    found = []
    for _, name, place in ranked:
        if left[name] > 0:
            left[name] -= 1
            found.append((name, place))
    return found


def _without(architecture: Architecture, channels: Sequence[tuple[str, int]]) -> Architecture:
    gone: dict[str, set[int]] = {}
    for name, place in channels:
        gone.setdefault(name, set()).add(place)
    kept = {
        name: tuple(channel for place, channel in enumerate(indices) if place not in gone.get(name, ()))
        for name, indices in architecture.indices.items()
    }
    return Architecture.with_kept(architecture.base, kept, architecture.removed)


def _min_max(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(), values.max()
    if low == high:
        return np.full_like(values, float(high > 0))
    result: NDArray[np.float64] = (values - low) / (high - low)
    return result


def _robust(values: NDArray[np.float64]) -> NDArray[np.float64]:
    first, median, third = np.quantile(values, (0.25, 0.5, 0.75))
    if values.min() == values.max():
        return np.full_like(values, float(values[0] > 0))
    result: NDArray[np.float64] = (values - median) / (third - first or 1.0)
    return result


def _tensors(architecture: Architecture) -> list[Tensor]:
    """The tensors of the architecture's layout, in its order."""
    by_name = architecture.description.tensor_by_name
    return [by_name[name] for name in architecture.layout.names]


def _ends(architecture: Architecture) -> NDArray[np.int64]:
    """Where in the flat vector each tensor but the last ends."""
    return np.cumsum([int(np.prod(shape)) for shape in architecture.layout.shapes])[:-1]


def _kind(architecture: Architecture, tensor: Tensor) -> str:
    layer = architecture.description.layer_by_name.get(tensor.name.rpartition(".")[0])
    return layer.kind if layer is not None else "other"


def _lengths(architecture: Architecture, tensor: Tensor) -> list[int]:
    """How long each stretch of the tensor's first dimension is."""
    return [architecture.sizes[axis.group] * axis.spread for axis in tensor.dimensions[0]]


def _repeated(architecture: Architecture, holds: Callable[[Tensor], bool]) -> Kept:
    sizes = [int(np.prod(shape)) for shape in architecture.layout.shapes]
    return np.repeat(np.array([holds(tensor) for tensor in _tensors(architecture)], np.bool_), sizes)
