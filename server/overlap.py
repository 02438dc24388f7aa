"""Learning across cohorts: every weight of the base network from all cohorts whose architecture holds it.

HeteroFL (Diao et al. 2021, section 3) averages the weights of slices that keep the first channels of a layer. Here the
kept channels are any set: an architecture's stored indices say which weight of the base network each of its own is. And
what is averaged is by default the update, not the weight: the cohorts' values of one weight differ from the start where
each was fine-tuned beside its own other weights, and an average of them suits none (the smallest cohort least).

An update is divided by the samples of all devices, also of those that do not hold the weight: that is a step along the
gradient of the mean loss over devices, to which a device adds nothing for a weight it does not have. Divided by those
of its holders alone, channels of large cohorts run after the classes of the few devices that have them.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from common.architecture import Architecture
from common.arrays import Vector, blocks
from common.models.description import BaseNetwork
from common.slicing import coordinates
from server.aggregation import Total
from server.cohorts import Cohort, architecture_of

_STRETCH = 2**15
_Places: TypeAlias = slice | NDArray[np.signedinteger[Any]]


def average_across(
    cohorts: Sequence[Cohort], totals: Mapping[str, Total], *, updates: bool, batch_norms: bool
) -> list[Vector]:
    """The new weights of each cohort, in their order.

    With `updates`, per weight, the cohort's value w plus sum(n_i (w_i - w)) over the devices that hold it, w being what
    the device's own cohort sent, divided by the n_i of all devices; without, the mean of holders' weights,
    sum(n_i w_i) / sum(n_i). `totals` has what each cohort's devices add to the sums; a cohort that nobody trained is
    not in it, learns from the others, and keeps what none of them holds. Without `batch_norms`, the scale, shift and
    statistics of batch norms are averaged within each cohort only; with `updates` the statistics always are, for a
    variance less another network's change may fall below 0. Cohorts with different base networks share nothing.
    """
    architectures = [architecture_of(cohort) for cohort in cohorts]
    sums = {base: _Sums(base, over_all=updates) for base in dict.fromkeys(one.base for one in architectures)}
    for cohort, architecture in zip(cohorts, architectures, strict=True):
        if cohort.name in totals:
            sums[architecture.base].add(architecture, totals[cohort.name], cohort.weights if updates else None)
    averaged = []
    for cohort, architecture in zip(cohorts, architectures, strict=True):
        own = _Own(cohort, totals.get(cohort.name))
        weights = sums[architecture.base].shared(architecture, own, cohort.weights if updates else None)
        if updates or not batch_norms:
            apart = batch_norm_positions(architecture, statistics_only=batch_norms)
            weights[apart] = own.mean(apart)
        averaged.append(weights)
    return averaged


class _Own:
    """What a cohort's devices make of its model without the others; what it was where nobody trained it."""

    def __init__(self, cohort: Cohort, total: Total | None) -> None:
        self._cohort, self._total = cohort, total
        self.samples = total.samples if total else 0

    def mean(self, part: slice | NDArray[np.bool_]) -> Vector:
        """Those of its weights."""
        return self._total.mean(part) if self._total else self._cohort.weights[part]


@lru_cache(maxsize=64)
def batch_norm_positions(architecture: Architecture, *, statistics_only: bool = False) -> NDArray[np.bool_]:
    """Which weights of the architecture belong to batch norms, or are running statistics of one; shape (size,)."""
    layers = architecture.description.layer_by_name
    layout = architecture.layout
    chosen = [
        layers[layer].kind == "batch_norm" and (tensor.startswith("running_") or not statistics_only)
        for layer, _, tensor in (name.rpartition(".") for name in layout.names)
    ]
    return np.repeat(chosen, [int(np.prod(shape)) for shape in layout.shapes])


class _Sums:
    """The sum of one base network's weights and what it is divided by, in float64.

    Each weight's sum is divided by the samples of its holders, or with `over_all` by those of all devices.
    """

    def __init__(self, base: BaseNetwork, *, over_all: bool) -> None:
        size = Architecture.full(base).layout.size
        self._weighted = np.zeros(size)
        self._samples = None if over_all else np.zeros(size)
        self._all_samples = 0

    def add(self, architecture: Architecture, total: Total, origin: Vector | None) -> None:
        """Add a cohort's devices, each counted from `origin`, shape (size,), or from 0."""
        scratch = np.empty(_STRETCH)
        for part, held in self._stretches(architecture):
            change = total.weighted[part]
            if origin is not None:
                before = np.multiply(origin[part], total.samples, out=scratch[: len(change)], dtype=np.float64)
                change = np.subtract(change, before, out=before)
            _add(self._weighted, held, change)
            if self._samples is not None:
                _add(self._samples, held, np.full(len(change), float(total.samples)))
        self._all_samples += total.samples

    def shared(self, architecture: Architecture, own: _Own, origin: Vector | None) -> Vector:
        """The cohort's new weights, shape (size,): the sums' quotients, added to `origin` where that is given.

        Where nobody else counts it is the cohort's own mean: exactly, which the detour over updates is only nearly.
        """
        if self._samples is None and self._all_samples == own.samples:
            return own.mean(slice(None)).copy()
        weights = np.empty(architecture.layout.size, np.float32)
        for part, held in self._stretches(architecture):
            samples = self._all_samples if self._samples is None else _at(self._samples, held)
            mean = _at(self._weighted, held)
            mean /= np.maximum(samples, 1)
            if origin is not None:
                mean += origin[part]
            weights[part] = mean
            if self._samples is not None:
                np.copyto(weights[part], own.mean(part), where=samples == own.samples)
        return weights

    def _stretches(self, architecture: Architecture) -> Iterator[tuple[slice, _Places]]:
        """Stretches of the architecture's vector that stay in the cache, and where they stand in the base network's."""
        whole = architecture.layout.size == len(self._weighted)
        held = None if whole else coordinates(architecture)
        for part in blocks(architecture.layout.size, _STRETCH):
            yield part, part if held is None else held[part]


def _add(sums: NDArray[np.float64], places: _Places, values: NDArray[np.float64]) -> None:
    """Add at `places`, of which none occurs twice; torch does it three times as fast as numpy."""
    if isinstance(places, slice):
        sums[places] += values
    else:
        torch.from_numpy(sums).index_add_(0, torch.from_numpy(places), torch.from_numpy(values))


def _at(values: NDArray[np.float64], places: _Places) -> NDArray[np.float64]:
    """A copy of the values at `places`."""
    if isinstance(places, slice):
        return values[places].copy()
    found: NDArray[np.float64] = torch.from_numpy(values).index_select(0, torch.from_numpy(places)).numpy()
    return found
