"""Aggregation that a minority of hostile devices cannot steer: coordinate-wise median or trimmed mean, norm clipping.

Median and trimmed mean are those of Yin et al. 2018 (definitions 1 and 2), over the devices of one cohort. They do not
weigh by sample counts, about which a device may lie. Clipping limits how far one device moves the model (Sun et al.
2019); its limit is a multiple of the cohort's median update norm and not a fixed norm, because update norms differ
between architectures and shrink as training converges, and nobody knows them beforehand. Running statistics of batch
norms are clipped apart from the weights.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.arrays import Vector
from common.groups import FederationSettings
from server.aggregation import CohortMean, Total

LEAST_DEVICES = 3
"""With fewer models no majority can outvote one: they are averaged as without protection."""

_CHUNK = 2**16


class RobustMean:
    """A cohort's models combined under the robust settings; the same calls as `CohortMean`.

    Unlike that one it has to hold all models of the cohort. `protected` tells, after `result`, whether there were
    enough models for the protection to mean anything; None where there was no model. `statistics` are those of
    `clip_updates`.
    """

    def __init__(self, sent: Vector, settings: FederationSettings, statistics: NDArray[np.bool_] | None = None) -> None:
        self._sent, self._statistics = sent, statistics
        self._settings = settings
        self._models: list[tuple[Vector, int]] = []
        self.protected: bool | None = None

    def fold(self, weights: Vector, samples: int) -> None:
        """Add the model of a device, shape (size,)."""
        self._models.append((weights, samples))

    def result(self) -> Total | None:
        """The combined model, counted for the samples of all folded ones; None if there was none."""
        if not self._models:
            return None
        settings, vectors = self._settings, [weights for weights, _ in self._models]
        self.protected = len(vectors) >= LEAST_DEVICES
        if self.protected and settings.clip_norm > 0:
            vectors = clip_updates(vectors, self._sent, settings.clip_norm, self._statistics)
        if self.protected and settings.robust_aggregation != "none":
            samples = sum(samples for _, samples in self._models)
            return Total(trimmed_mean(vectors, _trimmed(settings, len(vectors))).astype(np.float64) * samples, samples)
        mean = CohortMean()
        for vector, (_, samples) in zip(vectors, self._models, strict=True):
            mean.fold(vector, samples)
        return mean.result()


def is_robust(settings: FederationSettings) -> bool:
    """Whether the settings ask for any protection that needs several models."""
    return settings.robust_aggregation != "none" or settings.clip_norm > 0


def trimmed_mean(vectors: Sequence[Vector], trimmed: int) -> Vector:
    """Per coordinate, the mean of the values without the `trimmed` smallest and largest; float32, shape (size,).

    With (n - 1) // 2 of n trimmed at both ends it is the median. Raises ValueError if nothing would be left.
    """
    count, size = len(vectors), len(vectors[0])
    if not 0 <= 2 * trimmed < count:
        raise ValueError(f"cannot trim {trimmed} of {count} models at both ends")
    result = np.empty(size, np.float32)
    for start in range(0, size, _CHUNK):  # so that the float64 copy stays small
        values = np.sort(np.stack([vector[start : start + _CHUNK] for vector in vectors]).astype(np.float64), axis=0)
        result[start : start + _CHUNK] = values[trimmed : count - trimmed].sum(axis=0) / (count - 2 * trimmed)
    return result


def clip_updates(
    vectors: Sequence[Vector], sent: Vector, multiple: float, statistics: NDArray[np.bool_] | None = None
) -> list[Vector]:
    """Each model, moved back towards the `sent` one so that its update's L2 norm is at most the limit.

    The limit is `multiple` times the median of the update norms, of an even number the smaller middle one: so it is the
    norm of an honest update, or below one, while more than half of the devices are honest. A model within the limit
    comes back as it is.

    With `statistics`, shape (size,), which says what are running statistics and no weights that are trained, these are
    clipped apart, with a limit of their own: how far they move depends on when they were last measured anew, and would
    be half of a common norm.
    """
    if statistics is None or not statistics.any():
        return _clipped(vectors, sent, multiple)
    whole = list(vectors)
    for part in (~statistics, statistics):
        before = [vector[part] for vector in whole]
        for place, (old, new) in enumerate(zip(before, _clipped(before, sent[part], multiple), strict=True)):
            if new is not old:
                whole[place] = whole[place].copy()
                whole[place][part] = new
    return whole


def _clipped(vectors: Sequence[Vector], sent: Vector, multiple: float) -> list[Vector]:
    base = sent.astype(np.float64)
    norms = [float(np.linalg.norm(vector - base)) for vector in vectors]
    limit = multiple * sorted(norms)[(len(norms) - 1) // 2]
    return [
        vector if norm <= limit else (base + (limit / norm) * (vector - base)).astype(np.float32)
        for vector, norm in zip(vectors, norms, strict=True)
    ]


def _trimmed(settings: FederationSettings, count: int) -> int:
    """How many of `count` models go at either end; at least one, or small cohorts would have no protection."""
    if settings.robust_aggregation == "median":
        return (count - 1) // 2
    return max(1, math.floor(settings.trim_share * count))
