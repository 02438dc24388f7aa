"""Who this device is and what it can afford: declared by its owner, dealt by the simulation, or measured."""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from client.measure import measured_profile
from common.budget import DeviceBudget, parse_bounds
from common.errors import ConfigurationError
from common.fleet import VirtualDevice, is_fleet_file, virtual_fleet
from common.groups import FleetSettings, ModelSettings
from common.settings import Scalar


@dataclass(frozen=True)
class Identity:
    """A device's stable name, the kind of hardware, its share of the data (a partition id), and its budget."""

    name: str
    profile: str
    partition: int
    budget: DeviceBudget


def identify(node_config: Mapping[str, Scalar], settings: FleetSettings) -> Identity:
    """The device's identity, from the first of these that applies.

    1. Declared: any of `max-macs`, `max-params` (30M, 1.2e6) and `max-memory` (512KB) in the node configuration.
    2. Dealt: a node configuration with a `partition-id` but no `device-name`, as every simulated node has, takes that
       place in `virtual_fleet(settings)`.
    3. Measured on this machine (see `client.measure`).

    A deployed device is called by its `device-name`, or by its `partition-id`, or like its machine; `profile` is a
    free text. The bounds in `settings` tighten every budget. Raises ConfigurationError for a partition id that does not
    exist, BudgetError for a bound that cannot be read.
    """
    partition = partition_of(node_config, settings)
    declared = _bounds(node_config)
    if declared == DeviceBudget() and "partition-id" in node_config and "device-name" not in node_config:
        device = _fleet(settings, _version(settings.fleet))[partition]
        return Identity(device.name, device.profile or "declared", partition, device.budget)
    if declared != DeviceBudget():
        profile, budget = str(node_config.get("profile", "declared")), declared
    else:
        profile = str(node_config.get("profile", "measured"))
        budget = measured_profile().budget(settings.target_latency_ms)
    return Identity(_name(node_config, partition), profile, partition, budget.meet(_bounds(settings.to_mapping())))


def own_model(node_config: Mapping[str, Scalar], settings: ModelSettings) -> str:
    """The one network beside ours that this device builds: `model` of its node configuration, else of the run's.

    What a message names is never imported, only compared with this.
    """
    return str(node_config.get("model", settings.model))


def partition_of(node_config: Mapping[str, Scalar], settings: FleetSettings) -> int:
    """The partition id, 0 where none is given; raises ConfigurationError if it is not one of `settings.devices`."""
    given = node_config.get("partition-id", 0)
    try:
        partition = int(given)
    except ValueError:
        raise ConfigurationError(f"partition-id must be a whole number, not {given!r}") from None
    if not 0 <= partition < settings.devices:
        raise ConfigurationError(
            f"partition-id is {partition}, but with devices = {settings.devices} it must lie between 0 and "
            f"{settings.devices - 1}; start as many nodes as devices"
        )
    return partition


def machine_name() -> str:
    """The name of this machine, as far as it can name a device."""
    machine = re.sub(r"[^A-Za-z0-9._-]", "-", platform.node()).strip("-._")
    return machine[:64] or "device"


# One process plays many devices in turn, and each of them would deal the whole fleet.
@lru_cache(maxsize=1)
def _fleet(settings: FleetSettings, version: tuple[int, int]) -> tuple[VirtualDevice, ...]:
    return tuple(virtual_fleet(settings))


def _version(fleet: str) -> tuple[int, int]:
    """Changes when a fleet file does; what is wrong with a file, `virtual_fleet` says better."""
    try:
        status = Path(fleet).stat() if is_fleet_file(fleet) else None
    except OSError:
        status = None
    return (status.st_mtime_ns, status.st_size) if status else (0, 0)


def _name(node_config: Mapping[str, Scalar], partition: int) -> str:
    if "device-name" in node_config:
        return str(node_config["device-name"])
    if "partition-id" in node_config:
        return f"device-{partition:02d}"
    return machine_name()


def _bounds(mapping: Mapping[str, Scalar]) -> DeviceBudget:
    """The bounds under the keys that node configurations and settings share; an empty text is no bound."""
    return parse_bounds({key: value for key, value in mapping.items() if value != ""}, "max-")
