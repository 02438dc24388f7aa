"""How devices that a method leaves without a model count: they guess.

A method that refuses the weak devices would otherwise gain by it, for the mean over the devices that it serves says
nothing of the others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from server.report.progress import Point


@dataclass(frozen=True)
class Fleet:
    """How many devices have a model at the end of a run, how many have none, and what guessing is worth.

    `chance` is one over the number of classes, NaN where a run did not record them.
    """

    served: int
    unserved: int
    chance: float

    @classmethod
    def of(cls, devices: int, served: int, events: Iterable[Mapping[str, Any]]) -> "Fleet":
        """Of a run with so many `devices` and these `events`, of which `run` names the classes."""
        classes = max((len(one.get("class_names") or ()) for one in events if one["event"] == "run"), default=0)
        return cls(served, max(0, devices - served), 1 / classes if classes else math.nan)

    def over_all(self, accuracy: float) -> float:
        """The mean over all devices where it is `accuracy` (0 to 1) over those that are served.

        >>> Fleet(served=3, unserved=1, chance=0.1).over_all(0.5)
        0.4
        """
        if not self.unserved:
            return accuracy
        known = self.served * accuracy if self.served else 0.0
        return (known + self.unserved * self.chance) / (self.served + self.unserved)

    def worst(self, accuracies: Iterable[float]) -> float:
        """The least of all devices where these are the accuracies of those that are served; NaN where none is known."""
        return min((*accuracies, self.chance) if self.unserved else accuracies, default=math.nan)

    def progress(self, points: Iterable[Point]) -> tuple[Point, ...]:
        """The points with accuracies over all devices."""
        return tuple(replace(point, accuracy=self.over_all(point.accuracy)) for point in points)
