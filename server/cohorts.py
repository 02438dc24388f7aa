"""A federation between two rounds: its cohorts and a few counters. A checkpoint holds these and the method's state."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from common.architecture import Architecture
from common.arrays import Vector
from common.budget import DeviceBudget
from common.layout import load_weights
from common.learning import place
from common.network import Network

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
class Spent:
    """What one step has cost a cohort in all rounds.

    Bytes are those of message contents, from server to devices (down) and back (up). `device_macs` are the
    multiply-accumulates of the devices whose answer was admitted, `answers` how many of these there were.
    """

    bytes_down: int = 0
    bytes_up: int = 0
    device_macs: int = 0
    answers: int = 0


@dataclass
class Cohort:
    """All devices with one network, and the weights they share; `devices` are names in canonical order.

    `weights` has shape (network.layout.size,). `search_accuracy` is the validation accuracy before the first round.
    `spent` is what each step of the method, and the evaluation on devices, has cost so far.
    """

    name: str
    network: Network
    weights: Vector
    search_accuracy: float
    devices: list[str]
    spent: dict[str, Spent] = field(default_factory=dict)
    evaluation: Evaluation | None = None

    def module(self, accelerator: torch.device) -> nn.Module:
        """A module with the cohort's weights on `accelerator`."""
        module = self.network.build(0)
        load_weights(module, self.network.layout.unflatten(self.weights))
        return place(module, accelerator)

    def keep(self, module: nn.Module) -> None:
        """Make the module's weights those of the cohort."""
        self.weights = self.network.layout.flatten(module.state_dict())

    def spent_on(self, step: str) -> Spent:
        """The account of one step, to be added to."""
        return self.spent.setdefault(step, Spent())


def architecture_of(cohort: Cohort) -> Architecture:
    """The cohort's network, which must be an architecture; raises TypeError for networks of other kinds."""
    return require_architecture(cohort.network, cohort.name)


def require_architecture(network: Network, name: str) -> Architecture:
    """`network`, of which `name` is made, if it is an architecture; raises TypeError for networks of other kinds."""
    if not isinstance(network, Architecture):
        raise TypeError(f"{name} has a {type(network).__name__}, which has no channels to compare")
    return network


def cohort_of(cohorts: Sequence[Cohort], device: str) -> Cohort | None:
    """The cohort that holds the device of this name."""
    return next((cohort for cohort in cohorts if device in cohort.devices), None)


@dataclass
class FederationState:
    """`round` is the last finished one, 0 before the first.

    `best_accuracy` is the best mean validation accuracy so far, `stale_evaluations` how many evaluations ago that was,
    and `fruitless_rounds` how many of the last rounds admitted no reply at all. `strikes` counts, per device, the
    failed or rejected replies since its last good one. `budgets` has, per device, the budget that it was last assigned
    by. `simulated_seconds` is how long the rounds would have taken on real devices (`common.simulated_time`).
    `method_seconds` is the time that the method itself took on the server, `method_bytes` the most that it held
    between two rounds.
    """

    round: int = 0
    best_accuracy: float = -1.0
    stale_evaluations: int = 0
    fruitless_rounds: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    simulated_seconds: float = 0.0
    method_seconds: float = 0.0
    method_bytes: int = 0
    peak_rss_bytes: int = 0
    stopped_early: bool = False
    strikes: dict[str, int] = field(default_factory=dict)
    budgets: dict[str, DeviceBudget] = field(default_factory=dict)

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
