"""What can be said of a simulation before anything is started or written.

Here the whole fleet is known. In a deployment only the server's handshake tells, and there a device that cannot take
part is left out by name while the others go on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from common.config import Config
from common.data.images import DataSet
from common.data.shares import device_shares
from common.data.sources import load
from common.errors import BudgetError
from common.fleet import virtual_fleet
from common.methods import contract_of
from common.search_space import SearchSpace
from dac.strides import with_strides
from server.methods import server_half
from server.reference import base_network
from simulation.remedies import remedy


@dataclass(frozen=True)
class Partition:
    """How many training images of each class (in the order of `class_names`) each device has, by its name."""

    class_names: tuple[str, ...]
    counts: Mapping[str, list[int]]


def check(config: Config, *, begun: bool = False) -> tuple[Config, Partition]:
    """Raise the error that the run would end with, or that would cost it a device; else how the data is divided.

    ConfigurationError for an unknown fleet; DataError for data that cannot be had or divided; and what the method
    itself finds wrong, such as BudgetError, with a remedy, for a device that no architecture fits. Loading the data
    here also fills the cache that all processes share. The configuration returned has the strides that suit images and
    fleet where `config` left them open. Of a run that has `begun` its checkpoint has what it read of files.
    """
    fleet = virtual_fleet(config.fleet, config.federation.local_training)
    data = load(config.data)
    shares = device_shares(data, config.data, config.run.seed, len(fleet))
    counts = [torch.bincount(data.train.labels[share], minlength=data.classes).tolist() for share in shares]
    try:
        whole = check_budgets(config, data, begun=begun)
    except BudgetError as error:
        raise BudgetError(str(error), remedy(config, data, lambda other: check_budgets(other, data))) from None
    return whole, Partition(data.class_names, dict(zip([one.name for one in fleet], counts, strict=True)))


def check_budgets(config: Config, data: DataSet, *, begun: bool = False) -> Config:
    """`config` with strides in numbers; raises what the method finds wrong for a device of the fleet."""
    fleet = virtual_fleet(config.fleet, config.federation.local_training)
    space = SearchSpace.of(config.search)
    budgets = [device.budget for device in fleet]
    model = with_strides(config.model, data.input_shape, data.classes, budgets, space)
    by_device = {f"{device.name} ({device.profile})": device.budget for device in fleet}
    server_half(config).check(config, base_network(model, data), by_device, begun=begun)
    return replace(config, model=model) if contract_of(config.method.method).reads_setting("strides") else config
