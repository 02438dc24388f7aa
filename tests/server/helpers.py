"""What several tests of federations share: a fleet of two budgets, a server that is cut short, and what a run left."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from flwr.app import Message

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.config import Config
from common.messages import Task
from common.progress import Silent
from common.rates import COUNTED, LatencyBound
from server.cohorts import Cohort
from server.devices import Device
from server.methods import server_half
from server.reference import load_reference
from server.run import Run
from server.run_folder import RunFolder
from simulation.grid import InlineGrid

SMALL_RUN: dict[str, str | int] = {
    "model": "mlp",
    "devices": 3,
    "rounds": 2,
    "fleet": "phone",
    "max-params": "15k",
    "warmup-epochs": 1,
    "epochs-per-step": 0,
    "fine-tune-epochs": 1,
    "accelerator": "cpu",
}
"""Settings of a run of a second or two."""

TWO_BUDGETS = """
[[device]]
name = "small"
count = 2
params = "6k"
[[device]]
name = "large"
params = "12k"
"""


def architecture_of(one: Cohort | Task) -> Architecture:
    """The network of a cohort or a task, which is an architecture cut from a base network."""
    assert isinstance(one.network, Architecture)
    return one.network


def slow_in(kind: str, share: float, costs: Costs) -> DeviceBudget:
    """A bound on latency of which a network of these costs takes `share`, all of it in operations of one kind."""
    units = dict(zip(COUNTED, costs.work(), strict=True))[kind, "value"]
    shares = (share / units if counted == (kind, "value") else 0.0 for counted in COUNTED)
    return DeviceBudget(latency=LatencyBound(20.0, tuple(shares)))


class CountingGrid(InlineGrid):
    """Counts the rounds in which devices were asked to train."""

    trains = 0

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        self.trains += any(message.metadata.message_type == "train" for message in messages)
        return super().push_messages(messages)


class Crash(Silent):
    """Progress that ends the process, so to speak, at its n-th call."""

    def __init__(self, instant: int) -> None:
        self.left = instant

    def advance(self, stage: str, units: int, message: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Notes(Silent):
    """Progress that remembers its notes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


def models(path: Path) -> dict[str, bytes]:
    """The files of a run's final models, by name."""
    return {file.name: file.read_bytes() for file in (path / "models").iterdir()}


def find_cohorts(devices: Sequence[Device], config: Config, folder: RunFolder) -> list[Cohort]:
    """The cohorts that the run's method makes of these devices."""
    run = Run(config, folder, load_reference(config), torch.device("cpu"), Silent())
    method = server_half(config)(run)
    method.prepare(devices)
    return method.cohorts
