"""What can be wrong with a simulation is found before any work: budgets, data, and how the data is divided."""

from pathlib import Path

from common.config import Config
from common.data.shares import device_shares
from common.data.sources import load
from common.errors import BudgetError
from common.fleet import virtual_fleet
from dac.plan import check_feasible
from dac.space import SearchSpace
from server.methods.given import read_members
from server.reference import base_network
from server.sampling import epoch_range


def check(config: Config) -> None:
    """Raise the error that the run would end with, or that would cost it a device.

    BudgetError for a device that no architecture of the search fits, DataError for data that cannot be had or divided,
    ArchitectureError for architecture files that are damaged or for other images, ConfigurationError for an unknown
    fleet or an impossible range of epochs. Loading the data here also fills the cache that all processes share.
    """
    fleet = virtual_fleet(config.fleet)
    epoch_range(config.federation.local_epochs)
    data = load(config.data)
    base = base_network(config.model, data)
    device_shares(data, config.data, config.run.seed, len(fleet))
    if config.method.method != "dac":
        return  # their smallest models differ, and the server names the devices that can hold none
    if config.method.architectures:
        read_members(Path(config.method.architectures), base, config.method.aggregation != "cohort")
        return
    for device in fleet:
        try:
            check_feasible(base, [device.budget], SearchSpace.of(config.search))
        except BudgetError as error:
            raise BudgetError(f"{device.name} ({device.profile}): {error}") from None
