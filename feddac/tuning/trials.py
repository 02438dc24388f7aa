"""What became of the trials of a method: how many there were of each kind, and which one is chosen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from common.settings import Scalar

State: TypeAlias = Literal["complete", "pruned", "failed", "running"]


@dataclass(frozen=True)
class Trial:
    """One trial; number 0 has the experiment's own settings.

    `accuracy` (0 to 1) is its score, NaN unless it is complete; `after` has what was known of it after each step, a
    round of a cell counted on over the cells; `reason` says why it failed.
    """

    method: str
    number: int
    state: State
    settings: Mapping[str, Scalar]
    accuracy: float
    after: Mapping[int, float]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a line of trials.jsonl has it; None stands for NaN."""
        return {
            "method": self.method,
            "trial": self.number,
            "state": self.state,
            "settings": dict(self.settings),
            "validation_accuracy": _finite(self.accuracy),
            "after": [
                {"step": step, "validation_accuracy": _finite(value)} for step, value in sorted(self.after.items())
            ],
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Choice:
    """The trials of a method and the best of the complete ones: of equals the first; None where none is complete."""

    method: str
    trials: tuple[Trial, ...]
    best: Trial | None

    @classmethod
    def of(cls, method: str, trials: Sequence[Trial]) -> "Choice":
        """The choice among these trials, in the order of their numbers."""
        complete = [one for one in trials if one.state == "complete"]
        return cls(method, tuple(trials), max(complete, key=lambda one: one.accuracy, default=None))

    def count(self, state: State) -> int:
        """How many trials are in this state."""
        return sum(one.state == state for one in self.trials)

    @property
    def accuracy(self) -> float:
        """The best score; NaN where there is none."""
        return math.nan if self.best is None else self.best.accuracy

    @property
    def own_accuracy(self) -> float:
        """The score of the experiment's own settings; NaN where they failed."""
        return next((one.accuracy for one in self.trials if one.number == 0), math.nan)

    @property
    def why_none(self) -> str:
        """Why no trial is complete: the reason of the first that failed."""
        return next((one.reason for one in self.trials if one.reason), "no trial came to its end")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
