"""What can be wrong with a simulation is found before any work: settings, budgets, data, and how it is divided."""

from common.config import Config, require_read
from common.data.shares import device_shares
from common.data.sources import load
from common.fleet import virtual_fleet
from server.methods import server_half
from server.reference import base_network
from server.sampling import epoch_range


def check(config: Config) -> None:
    """Raise the error that the run would end with, or that would cost it a device.

    ConfigurationError for a setting that the method does not read, an unknown fleet, or an impossible range of epochs;
    DataError for data that cannot be had or divided; and what the method itself finds wrong, such as BudgetError for a
    device that no architecture fits. Loading the data here also fills the cache that all processes share.
    """
    require_read(config)
    half = server_half(config)
    fleet = virtual_fleet(config.fleet)
    epoch_range(config.federation.local_epochs)
    data = load(config.data)
    base = base_network(config.model, data)
    device_shares(data, config.data, config.run.seed, len(fleet))
    half.check(config, base, {f"{device.name} ({device.profile})": device.budget for device in fleet})
