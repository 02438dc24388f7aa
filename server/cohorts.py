"""A federation between two rounds: its cohorts and a few counters. A checkpoint holds exactly this."""

from dataclasses import dataclass, field

from common.architecture import Architecture
from common.weights import Vector


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

    `weights` has shape (Layout.of(architecture).size,). `search_accuracy` is the validation accuracy that the search
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
    and `fruitless_rounds` how many of the last rounds admitted no reply at all.
    """

    cohorts: list[Cohort]
    round: int = 0
    best_accuracy: float = -1.0
    stale_evaluations: int = 0
    fruitless_rounds: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_bytes: int = 0
    stopped_early: bool = False

    def cohort_of(self, device: str) -> Cohort | None:
        """The cohort that holds the device of this name."""
        return next((cohort for cohort in self.cohorts if device in cohort.devices), None)
