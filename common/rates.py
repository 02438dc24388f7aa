"""How long a device takes for each kind of operation, and what part of a time limit that makes of it.

The time of one image is a sum over the operations of a network, each of a kind: so long per call, per
multiply-accumulate and per value read or written. One rate for everything would be wrong by factors: a depthwise
convolution does a multiply-accumulate slower than a plain one, and what no layer counts (normalisation, activations,
sums) takes time as well.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from common.errors import BudgetError

KINDS = ("conv", "pointwise", "depthwise", "grouped", "linear", "batch_norm", "other")
"""Kinds of operations: convolutions by what a kernel reads, linear layers, batch norms, and all the rest."""
FIGURES = ("call", "mac", "value")
"""What of an operation is counted: that it runs, its multiply-accumulates, and the values it reads or writes."""
COUNTED = tuple((kind, figure) for kind in KINDS for figure in FIGURES)
"""The order in which rates are kept."""


@dataclass(frozen=True)
class Rates:
    """Seconds per unit of each of COUNTED. Raises BudgetError unless all are finite, none negative and one positive."""

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(self.seconds)

    @classmethod
    def per_mac(cls, macs_per_second: Mapping[str, float]) -> Self:
        """Rates that count nothing but multiply-accumulates, by kind; a kind that is missing takes no time."""
        speeds = {(kind, "mac"): speed for kind, speed in macs_per_second.items()}
        return cls(tuple(1 / speeds[one] if one in speeds else 0.0 for one in COUNTED))

    def of(self, kind: str, figure: str) -> float:
        """Seconds per unit of a figure of a kind."""
        return self.seconds[COUNTED.index((kind, figure))]

    def seconds_for(self, work: Sequence[float]) -> float:
        """Seconds for so many units of each of COUNTED."""
        return sum(map(_times, self.seconds, work))

    def to_dict(self) -> dict[str, dict[str, float]]:
        """As JSON: seconds by kind and figure."""
        return {kind: {figure: self.of(kind, figure) for figure in FIGURES} for kind in KINDS}


@dataclass(frozen=True)
class LatencyBound:
    """An upper bound on the time of one image, by a device's own rates.

    `shares` are what part of the bound one unit of each of COUNTED takes, so that work whose shares sum to 1 breaks it.
    A bound met by several devices takes the larger of their shares, and the smallest of their `milliseconds`, which are
    for people to read.
    """

    milliseconds: float = field(compare=False)
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.milliseconds) and self.milliseconds > 0):
            raise BudgetError(f"the latency bound must be a positive number of milliseconds, not {self.milliseconds}")
        _check(self.shares)

    @classmethod
    def by(cls, rates: Rates, milliseconds: float) -> Self:
        """At most `milliseconds` by these rates; BudgetError where that is no time at all."""
        if not milliseconds > 0:
            raise BudgetError(f"the latency bound must be a positive number of milliseconds, not {milliseconds}")
        return cls(milliseconds, tuple(1000 * seconds / milliseconds for seconds in rates.seconds))

    def used(self, work: Sequence[float]) -> float:
        """What share of the bound so many units of each of COUNTED take: 1 is all of it."""
        return sum(map(_times, self.shares, work))

    def meet(self, other: "LatencyBound") -> "LatencyBound":
        """The bound that is as tight as either: it takes the larger share of each unit."""
        return LatencyBound(min(self.milliseconds, other.milliseconds), tuple(map(max, self.shares, other.shares)))

    def join(self, other: "LatencyBound") -> "LatencyBound | None":
        """The tightest bound of this form that is as loose as both; None where nothing would take any of it."""
        shares = tuple(map(min, self.shares, other.shares))
        return LatencyBound(max(self.milliseconds, other.milliseconds), shares) if any(shares) else None

    def within(self, other: "LatencyBound") -> bool:
        """Whether whatever is below this bound is below `other`."""
        return all(mine >= theirs for mine, theirs in zip(self.shares, other.shares, strict=True))

    def loosened(self, factor: float) -> "LatencyBound":
        """The bound with `factor` times the time."""
        return LatencyBound(self.milliseconds * factor, tuple(share / factor for share in self.shares))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"milliseconds": self.milliseconds, "shares": list(self.shares)}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The inverse of `to_dict`; raises BudgetError for anything it would not have written."""
        try:
            return cls(_number(data["milliseconds"]), tuple(map(_number, data["shares"])))
        except (KeyError, TypeError) as error:
            raise BudgetError(f"a latency bound has milliseconds and shares: {error}") from None


def _times(one: float, other: float) -> float:
    return one * other


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"unexpected {value!r:.60}")
    return float(value)


def _check(values: Sequence[float]) -> None:
    if len(values) != len(COUNTED):
        raise BudgetError(f"rates are {len(COUNTED)} numbers, not {len(values)}")
    if not all(math.isfinite(value) and value >= 0 for value in values) or not any(values):
        raise BudgetError("rates must be finite and not negative, and one of them positive")
