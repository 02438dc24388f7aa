"""Federated averaging with one model for all devices (McMahan et al. 2017, arXiv:1602.05629, algorithm 1).

Which model decides what is compared: the largest slice of the base network that every device can hold (smallest), the
base network on every device whatever its budget (largest: an oracle, which no such fleet could run), or the base
network on those devices alone that can hold it (drop-weak).
"""

from collections.abc import Sequence
from functools import reduce

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.errors import BudgetError
from common.models.description import BaseNetwork
from common.progress import Progress
from server.cohorts import Cohort
from server.devices import Device
from server.methods.record import record_architecture, refuse
from server.methods.slices import largest_slice, sliceable
from server.methods.start import starting_member, starting_state
from server.reference import Reference
from server.run_folder import RunFolder


def find_cohorts(
    devices: Sequence[Device],
    reference: Reference,
    config: Config,
    folder: RunFolder,
    accelerator: torch.device,
    progress: Progress,
) -> list[Cohort]:
    """The one cohort; see `server.methods.find_cohorts`."""
    base, budget = reference.base, DeviceBudget()
    architecture = Architecture.full(base)
    if config.method.fedavg_model == "smallest":
        devices = sliceable(devices, base, folder, progress)
        budget = reduce(DeviceBudget.meet, [one.budget for one in devices])
        architecture = largest_slice(base, budget)
    elif config.method.fedavg_model == "drop-weak":
        devices = _strong(devices, base, folder, progress)
        budget = reduce(DeviceBudget.meet, [one.budget for one in devices])
    trained = architecture, starting_state(architecture, reference, config, folder, accelerator, progress)
    member = starting_member(architecture, budget, trained, reference, config, accelerator)
    weights = architecture.layout.flatten(member.state)
    names = [one.name for one in devices]
    cohort = Cohort("cohort-0", architecture, weights, member.validation_accuracy, names)
    record_architecture(folder, cohort, member, config.run.seed)
    return [cohort]


def _strong(devices: Sequence[Device], base: BaseNetwork, folder: RunFolder, progress: Progress) -> list[Device]:
    """The devices that can hold the base network; the others are refused. Raises BudgetError if none can."""
    costs = Architecture.full(base).costs
    needs = f"{costs.macs:,} MACs, {costs.params:,} parameters and {costs.peak_memory_bytes:,} bytes of peak memory"
    strong = []
    for device in devices:
        if device.budget.admits(costs):
            strong.append(device)
        else:
            refuse(device, f"a budget {device.budget} cannot hold {base.model}, which needs {needs}", folder, progress)
    if not strong:
        raise BudgetError(
            f"no device can hold {base.model}, which needs {needs}; raise a budget, lower --width, or take "
            "--fedavg-model smallest"
        )
    return strong
