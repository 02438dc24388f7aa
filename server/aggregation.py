"""Federated averaging within a cohort (McMahan et al. 2017, algorithm 1): sum of n_i w_i over sum of n_i."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.arrays import BLOCK, Vector, blocks


@dataclass(frozen=True)
class Total:
    """The sum of n_i w_i over devices, float64 of shape (size,), and the sum of n_i."""

    weighted: NDArray[np.float64]
    samples: int

    def mean(self, part: slice | NDArray[np.bool_] = slice(None)) -> Vector:
        """The sample-weighted mean as float32, of all weights or of a part of them."""
        return (self.weighted[part] / self.samples).astype(np.float32)


class CohortMean:
    """The sample-weighted mean of models, folded in one by one; one float64 sum is held, however many there are.

    Floating-point sums depend on their order, so whoever folds must do it in the same order in every run.
    """

    def __init__(self) -> None:
        self._sum: NDArray[np.float64] | None = None
        self._samples = 0

    def fold(self, weights: Vector, samples: int) -> None:
        """Add the model of a device, shape (size,)."""
        if self._sum is None:
            self._sum = np.multiply(weights, samples, dtype=np.float64)
        else:
            share = np.empty(min(BLOCK, len(weights)))
            for part in blocks(len(weights)):  # so that the shares never leave the processor's cache
                scaled = np.multiply(weights[part], samples, out=share[: part.stop - part.start], dtype=np.float64)
                self._sum[part] += scaled
        self._samples += samples

    def result(self) -> Total | None:
        """The sums over the folded models; None if there was none."""
        return None if self._sum is None else Total(self._sum, self._samples)


MOST_MEDIANS = 3
"""Where cohorts learn from each other, no device counts for more than this many times the median of all asked."""


def plausible_samples(registered: Iterable[int]) -> int:
    """The number of samples at most counted per device across cohorts: MOST_MEDIANS times the median of `registered`.

    A number of images that a device registered cannot be verified, and where an update is divided by the samples of all
    devices, one that claims 2^40 would stop every cohort from learning, also alone in its own. Of an even number the
    smaller middle one is the median: while more than half of the devices are honest, it is at most an honest count.

    >>> plausible_samples([10, 20, 30, 2**40])
    60
    """
    counts = sorted(registered)
    return MOST_MEDIANS * counts[(len(counts) - 1) // 2]


def plausible_images(registered: Iterable[int], shared_images: int) -> int:
    """The most images that one device is believed to have: those of a device of plausible size, or all of the run.

    A device that holds a share of the run's own data, `shared_images` in all, is below it however they are divided.
    """
    return max(plausible_samples(registered), shared_images)


def sample_cap(registered: Sequence[int], share: float) -> int:
    """The number of samples at most counted per device, so that none of these devices has more than `share` of all.

    Where that is impossible, with no more than 1 / share devices, all count alike. `registered` are what the devices
    asked registered at the handshake, a number no server can verify; so the cap is known before the first reply.

    >>> sample_cap([10, 10, 1000], 0.5)
    20
    """
    counts = sorted(registered, reverse=True)
    for capped, largest in enumerate(counts):
        if share * capped >= 1:
            break
        cap = share * sum(counts[capped:]) / (1 - share * capped)
        if largest <= cap:
            return int(cap)
    return counts[-1]
