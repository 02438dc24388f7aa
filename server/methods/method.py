"""What a method is on the server. The round loop and the strategy know no method but through these calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import nn

from common.arrays import Arrays
from common.budget import DeviceBudget
from common.config import Config
from common.messages import Result
from common.methods.contract import Contract
from common.models.description import BaseNetwork
from common.network import Network
from server.cohorts import Cohort
from server.devices import Device
from server.run import Run
from server.steps import Step


@dataclass(frozen=True)
class Snapshot:
    """A method's state beside its cohorts: what is JSON, and named arrays."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A trained model: `name` is that of its file, `module` was built by `network`."""

    name: str
    network: Network
    module: nn.Module


class Method(Protocol):
    """A run has one. `cohorts` are what a joining device is sent: largest network first, empty before `prepare`.

    The loop calls `check`, then `prepare` once or `restore`, then for each round `steps`, `fold` for each answer that
    was admitted, and `finish`; after any round the run may be cut, and is resumed with `restore`.
    """

    contract: ClassVar[type[Contract]]
    cohorts: list[Cohort]

    def __init__(self, run: Run) -> None: ...

    @classmethod
    def check(
        cls, config: Config, base: BaseNetwork, budgets: Mapping[str, DeviceBudget], *, begun: bool = False
    ) -> None:
        """Raise, before any work, what the user must mend: settings that cannot work, or a budget of `budgets`.

        These are by a name for each device; there are none where the devices are not known yet. A run that has `begun`
        goes on from a checkpoint, which has what was read of files before the first round: these may be gone.
        """

    def prepare(self, devices: Sequence[Device]) -> None:
        """Do once what comes before the first round: search, pretraining; then the cohorts stand.

        Devices in none of them were refused by name. What was cut short goes on from the run folder. Raises
        BudgetError, saying what would be enough, if no device can take part.
        """

    def place(self, device: Device) -> Cohort | None:
        """The cohort for a device that comes late or whose budget changed; None if there is none for it."""

    def steps(self, number: int) -> Sequence[Step]:
        """What to ask in this round; a device is in at most one step."""

    def fold(self, step: Step, device: Device, result: Result) -> None:
        """Take in an admitted answer; `result.samples` is what it counts for."""

    def finish(self, number: int) -> None:
        """End the round: combine, train at the server, change networks."""

    def module(self, cohort: Cohort) -> nn.Module:
        """What evaluation scores, on the run's accelerator."""

    def models(self, cohort: Cohort) -> Sequence[Model]:
        """What the run folder keeps of the cohort at the end, under its name and names that begin with it.

        What is scored is among them: `server.run_models` says which. Their networks must be Architectures, so that what
        is saved can be rebuilt from its file alone.
        """

    def notes(self, cohort: Cohort) -> Mapping[str, Any]:
        """What the event of the round that was finished says of a cohort beside what it says for every method."""

    def epochs_on_reference(self, rounds: int) -> int:
        """Passes over the reference set that the most trained network has behind it after so many rounds."""

    def snapshot(self) -> Snapshot:
        """What a checkpoint must hold beside the cohorts."""

    def restore(self, cohorts: list[Cohort], saved: Snapshot) -> None:
        """Go on from a checkpoint."""
