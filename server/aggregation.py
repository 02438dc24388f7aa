"""Federated averaging within a cohort (McMahan et al. 2017, algorithm 1): sum of n_i w_i over sum of n_i."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.layout import Vector


@dataclass(frozen=True)
class Total:
    """The sum of n_i w_i over devices, float64 of shape (size,), and the sum of n_i."""

    weighted: NDArray[np.float64]
    samples: int

    def mean(self) -> Vector:
        """The sample-weighted mean as float32."""
        return (self.weighted / self.samples).astype(np.float32)


class CohortMean:
    """The sample-weighted mean of a cohort's models, folded in as they arrive.

    Floating-point sums depend on their order, so models are added in the order of `devices` whatever order they come
    in: an early one waits until those before it were folded or skipped. Beside such early ones only one float64 sum is
    held, however many devices there are.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._order = list(devices)
        self._next = 0
        self._early: dict[str, tuple[Vector, int] | None] = {}
        self._sum: NDArray[np.float64] | None = None
        self._samples = 0

    def fold(self, device: str, weights: Vector, samples: int) -> None:
        """Add the model of a device, shape (size,); once per device."""
        self._settle(device, (weights, samples))

    def skip(self, device: str) -> None:
        """Go on without a device."""
        self._settle(device, None)

    def result(self) -> Total | None:
        """The sums over the folded models; None if there was none. Devices not heard of are skipped."""
        for device in self._order[self._next :]:
            if device not in self._early:
                self._early[device] = None
        self._drain()
        if self._sum is None:
            return None
        return Total(self._sum, self._samples)

    def _settle(self, device: str, model: tuple[Vector, int] | None) -> None:
        if device in self._early or device not in self._order[self._next :]:
            raise ValueError(f"{device} was not asked, or settled before")
        self._early[device] = model
        self._drain()

    def _drain(self) -> None:
        while self._next < len(self._order) and self._order[self._next] in self._early:
            model = self._early.pop(self._order[self._next])
            self._next += 1
            if model is None:
                continue
            weights, samples = model
            share = weights.astype(np.float64) * samples
            self._sum = share if self._sum is None else np.add(self._sum, share, out=self._sum)
            self._samples += samples


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
