"""Federated averaging with one model for all devices (McMahan et al. 2017, arXiv:1602.05629, algorithm 1).

Which model decides what is compared: the largest slice of the base network that every device can hold (smallest), the
base network on every device whatever its budget (largest: an oracle, which no such fleet could run), or the base
network on those devices alone that can hold it (drop-weak).
"""

from collections.abc import Sequence
from functools import reduce
from typing import ClassVar

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import BudgetError
from common.methods.contract import Contract
from common.methods.fedavg import FedAvg, FedAvgSettings
from server.cohorts import Cohort
from server.devices import Device
from server.methods.architecture_files import record_architecture
from server.methods.averaged import Averaged
from server.methods.pretraining import pretraining_epochs, starting_member, starting_state
from server.methods.refusals import refuse
from server.methods.slices import common_slice, sliceable
from server.run import Run


class FedAvgServer(Averaged):
    """One cohort."""

    contract: ClassVar[type[Contract]] = FedAvg

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.which = run.config.of(FedAvgSettings).fedavg_model

    def find_cohorts(self, devices: Sequence[Device]) -> list[Cohort]:
        """All devices that take part, with one model trained on the reference set."""
        run, budget = self.run, DeviceBudget()
        architecture = Architecture.full(run.reference.base)
        if self.which == "smallest":
            devices = sliceable(devices, run)
            budget = reduce(DeviceBudget.meet, [one.budget for one in devices])
            architecture = common_slice(architecture.base, [one.budget for one in devices])
        elif self.which == "drop-weak":
            devices = self._strong(devices, architecture)
            budget = reduce(DeviceBudget.meet, [one.budget for one in devices])
        member = starting_member(architecture, budget, (architecture, starting_state(architecture, run)), run)
        weights = architecture.layout.flatten(member.state)
        names = [one.name for one in devices]
        cohort = Cohort("cohort-0", architecture, weights, member.validation_accuracy, names)
        record_architecture(run, cohort, member)
        return [cohort]

    def place(self, device: Device) -> Cohort | None:
        """The one cohort, if the device can hold its model; the oracle takes every device."""
        return self.cohorts[0] if self.which == "largest" else super().place(device)

    def epochs_on_reference(self, rounds: int) -> int:
        """Those of the pretraining."""
        return pretraining_epochs(self.run.config)

    def _strong(self, devices: Sequence[Device], whole: Architecture) -> list[Device]:
        """The devices that can hold the base network; the others are refused. Raises BudgetError if none can."""
        needs = f"{whole.base.model}, which needs {whole.costs}"
        strong = []
        for device in devices:
            if device.budget.admits(whole.costs):
                strong.append(device)
            else:
                refuse(device, f"a budget {device.budget} cannot hold {needs}", self.run)
        if not strong:
            raise BudgetError(
                f"no device can hold {needs}; raise a budget, lower --width, or take --fedavg-model smallest"
            )
        return strong
