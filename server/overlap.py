"""Averaging across cohorts: every weight of the base network over all cohorts whose architecture holds it.

HeteroFL (Diao et al. 2021, section 3) does this for slices that keep the first channels of a layer. Here the kept
channels are any set: an architecture's stored indices say which weight of the base network each of its own is.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from common.architecture import Architecture
from common.models.description import BaseNetwork
from common.slicing import slice_state
from common.weights import Layout, Vector
from server.aggregation import Total
from server.cohorts import Cohort


def average_across(cohorts: Sequence[Cohort], totals: Mapping[str, Total], *, batch_norms: bool) -> list[Vector]:
    """The new weights of each cohort, in their order: per weight sum(n_i w_i) / sum(n_i) over all devices that hold it.

    `totals` has what each cohort's devices add to the two sums; a cohort that nobody trained is not in it, learns from
    the others, and keeps what none of them holds. Without `batch_norms`, the scale, shift and statistics of batch norms
    are averaged within each cohort only. Cohorts with different base networks share nothing.
    """
    sums = {base: _Sums(base) for base in dict.fromkeys(cohort.architecture.base for cohort in cohorts)}
    for cohort in cohorts:
        if cohort.name in totals:
            sums[cohort.architecture.base].add(cohort.architecture, totals[cohort.name])
    averaged = []
    for cohort in cohorts:
        weights = sums[cohort.architecture.base].mean(cohort.architecture, cohort.weights)
        if not batch_norms:
            own = totals[cohort.name].mean() if cohort.name in totals else cohort.weights
            apart = batch_norm_positions(cohort.architecture)
            weights[apart] = own[apart]
        averaged.append(weights)
    return averaged


@lru_cache(maxsize=64)
def coordinates(architecture: Architecture) -> NDArray[np.int64]:
    """Where each weight of the architecture stands in its base network's flat vector; shape (size,)."""
    full = Architecture.full(architecture.base)
    layout = Layout.of(full)
    numbers, start = {}, 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        count = int(np.prod(shape))
        numbers[name] = torch.arange(start, start + count).reshape(shape)
        start += count
    kept = slice_state(numbers, full, architecture)
    return torch.cat([kept[name].reshape(-1) for name in Layout.of(architecture).names]).numpy()


@lru_cache(maxsize=64)
def batch_norm_positions(architecture: Architecture) -> NDArray[np.bool_]:
    """Which weights of the architecture belong to batch norms; shape (size,)."""
    layers = architecture.description.layer_by_name
    layout = Layout.of(architecture)
    kinds = [layers[name.rpartition(".")[0]].kind == "batch_norm" for name in layout.names]
    return np.repeat(kinds, [int(np.prod(shape)) for shape in layout.shapes])


class _Sums:
    """The two sums of one base network's weights, in float64."""

    def __init__(self, base: BaseNetwork) -> None:
        size = Layout.of(Architecture.full(base)).size
        self._weighted = np.zeros(size)
        self._samples = np.zeros(size)

    def add(self, architecture: Architecture, total: Total) -> None:
        held = coordinates(architecture)
        self._weighted[held] += total.weighted
        self._samples[held] += total.samples

    def mean(self, architecture: Architecture, otherwise: Vector) -> Vector:
        held = coordinates(architecture)
        samples = self._samples[held]
        trained = samples > 0
        result = otherwise.copy()
        result[trained] = (self._weighted[held][trained] / samples[trained]).astype(np.float32)
        return result
