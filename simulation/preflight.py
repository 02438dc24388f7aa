"""What can be wrong with a simulation is found before any work: budgets, data, and how the data is divided."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from common.config import Config
from common.data.shares import device_shares
from common.data.sources import load
from common.errors import BudgetError
from common.fleet import virtual_fleet
from dac.plan import check_feasible
from server.methods.given import read_members
from server.reference import base_network
from server.sampling import epoch_range


@dataclass(frozen=True)
class Partition:
    """How many training images of each class (in the order of `class_names`) each device has, by its name."""

    class_names: tuple[str, ...]
    counts: Mapping[str, list[int]]


def check(config: Config) -> Partition:
    """Raise the error that the run would end with, or that would cost it a device.

    BudgetError for a device that no architecture of the search fits, DataError for data that cannot be had or divided,
    ArchitectureError for architecture files that are damaged or for other images, ConfigurationError for an unknown
    fleet or an impossible range of epochs. Loading the data here also fills the cache that all processes share. Returns
    how the data is divided.
    """
    fleet = virtual_fleet(config.fleet)
    epoch_range(config.federation.local_epochs)
    data = load(config.data)
    base = base_network(config.model, data)
    shares = device_shares(data, config.data, config.run.seed, len(fleet))
    counts = [torch.bincount(data.train.labels[share], minlength=data.classes).tolist() for share in shares]
    partition = Partition(data.class_names, dict(zip([one.name for one in fleet], counts, strict=True)))
    if config.method.method != "dac":
        return partition  # their smallest models differ, and the server names the devices that can hold none
    if config.method.architectures:
        read_members(Path(config.method.architectures), base, config.method.aggregation != "cohort")
        return partition
    for device in fleet:
        try:
            check_feasible(base, [device.budget])
        except BudgetError as error:
            raise BudgetError(f"{device.name} ({device.profile}): {error}") from None
    return partition
