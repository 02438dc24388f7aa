"""A federation between two rounds: its cohorts and a few counters. A checkpoint holds exactly this."""

from dataclasses import dataclass, field

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.layout import Vector

STRIKES = 3
"""So many rounds in a row with a failed or rejected reply, and a device is asked no more."""


@dataclass(frozen=True)
class Evaluation:
    """A cohort's model after a round: accuracy (0 to 1) and loss on the test set, accuracy on the validation split."""

    round: int
    accuracy: float
    loss: float
    validation_accuracy: float


@dataclass
class Cohort:
    """All devices with one architecture, and the model they share; `devices` are names in canonical order.

    `weights` has shape (architecture.layout.size,). `search_accuracy` is the validation accuracy that the search
    reached. Bytes are those of message contents, from server to devices (down) and back (up).
    """

    name: str
    architecture: Architecture
    weights: Vector
    search_accuracy: float
    devices: list[str]
    bytes_down: int = 0
    bytes_up: int = 0
    evaluation: Evaluation | None = None


@dataclass
class FederationState:
    """`round` is the last finished one, 0 after the search.

    `best_accuracy` is the best mean validation accuracy so far, `stale_evaluations` how many evaluations ago that was,
    and `fruitless_rounds` how many of the last rounds admitted no reply at all. `strikes` counts, per device, the
    failed or rejected replies since its last good one. `budgets` has, per device, the budget that it was last assigned
    by.
    """

    cohorts: list[Cohort]
    round: int = 0
    best_accuracy: float = -1.0
    stale_evaluations: int = 0
    fruitless_rounds: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_bytes: int = 0
    stopped_early: bool = False
    strikes: dict[str, int] = field(default_factory=dict)
    budgets: dict[str, DeviceBudget] = field(default_factory=dict)

    def cohort_of(self, device: str) -> Cohort | None:
        """The cohort that holds the device of this name."""
        return next((cohort for cohort in self.cohorts if device in cohort.devices), None)

    def strike(self, device: str, status: str) -> bool:
        """Note how a device's round ended; True if that was the strike after which it is left out.

        A late reply neither counts nor clears: the device may be slow, or may be hiding.
        """
        if status == "trained":
            self.strikes.pop(device, None)
        elif status in ("failed", "rejected"):
            self.strikes[device] = self.strikes.get(device, 0) + 1
            return self.strikes[device] == STRIKES
        return False

    def is_left_out(self, device: str) -> bool:
        """Whether the device has had its last chance."""
        return self.strikes.get(device, 0) >= STRIKES
