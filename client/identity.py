"""Who this device is and what it can afford: declared by its owner, dealt by the simulation, or measured."""

import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from client.measure import measured_profile
from client.node_config import LATENCY, check_node_config
from common.bounds import parse_bounds, parse_milliseconds
from common.budget import USUAL_TRAINING, DeviceBudget, LocalTraining
from common.errors import ConfigurationError
from common.fleet import PROFILES, DeviceProfile, VirtualDevice, is_fleet_file, virtual_fleet
from common.groups import FleetSettings, ModelSettings
from common.rates import LatencyBound
from common.settings import Scalar


@dataclass(frozen=True)
class Identity:
    """A device's stable name, the kind of hardware, its share of the data (a partition id), and its budget."""

    name: str
    profile: str
    partition: int
    budget: DeviceBudget


def identify(
    node_config: Mapping[str, Scalar],
    settings: FleetSettings,
    training: LocalTraining = USUAL_TRAINING,
    measured: Callable[[], DeviceProfile] = measured_profile,
) -> Identity:
    """The device's identity, from the first of these that applies.

    1. Declared: any of `max-macs`, `max-params` (30M, 1.2e6), `max-memory`, `max-training-memory` (512KB) and
       `max-latency-ms` in the node configuration. A latency is judged by the rates of the `profile` there, if it is one
       of `common.fleet.PROFILES`, or else by rates measured on this machine.
    2. Dealt: a node configuration with a `partition-id` but no `device-name`, as every simulated node has, takes that
       place in `virtual_fleet`.
    3. Measured on this machine by `measured`.

    `training` is how the device trains, which its memory for training depends on.

    A deployed device is called by its `device-name`, or by its `partition-id`, or like its machine; `profile` is a
    name by the same rules. The bounds in the settings tighten every budget. Raises ConfigurationError for a key that
    nothing reads and a partition id that does not exist, BudgetError for a bound that cannot be read.
    """
    check_node_config(node_config)
    partition = partition_of(node_config, settings)
    declared = _bounds(node_config, training)
    declares = declared != DeviceBudget() or LATENCY in node_config
    if _is_dealt(node_config, declares):
        device = _fleet(settings, training, _version(settings.fleet))[partition]
        return Identity(device.name, device.profile or "declared", partition, device.budget)
    profile = str(node_config.get("profile", "declared" if declares else "measured"))
    if not declares:
        declared = measured().budget(settings.max_latency_ms, training)
    elif LATENCY in node_config:
        known = PROFILES.get(profile) or measured()
        limit = parse_milliseconds(node_config[LATENCY], LATENCY)
        declared = replace(declared, latency=LatencyBound.by(known.rates, limit))
    budget = declared.meet(_bounds(settings.to_mapping(), training))
    return Identity(device_name(node_config, settings, training), profile, partition, budget)


def device_name(
    node_config: Mapping[str, Scalar], settings: FleetSettings, training: LocalTraining = USUAL_TRAINING
) -> str:
    """What the device is called (see `identify`), without finding out what it can afford."""
    partition = partition_of(node_config, settings)
    if _is_dealt(node_config, _bounds(node_config) != DeviceBudget() or LATENCY in node_config):
        return _fleet(settings, training, _version(settings.fleet))[partition].name
    if "device-name" in node_config:
        return str(node_config["device-name"])
    if "partition-id" in node_config:
        return f"device-{partition:02d}"
    return machine_name()


def _is_dealt(node_config: Mapping[str, Scalar], declares: bool) -> bool:
    return not declares and "partition-id" in node_config and "device-name" not in node_config


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
def _fleet(settings: FleetSettings, training: LocalTraining, version: tuple[int, int]) -> tuple[VirtualDevice, ...]:
    return tuple(virtual_fleet(settings, training))


def _version(fleet: str) -> tuple[int, int]:
    """Changes when a fleet file does; what is wrong with a file, `virtual_fleet` says better."""
    try:
        status = Path(fleet).stat() if is_fleet_file(fleet) else None
    except OSError:
        status = None
    return (status.st_mtime_ns, status.st_size) if status else (0, 0)


def _bounds(mapping: Mapping[str, Scalar], training: LocalTraining = USUAL_TRAINING) -> DeviceBudget:
    """The bounds under the keys that node configurations and settings share; an empty text is no bound."""
    return parse_bounds({key: value for key, value in mapping.items() if value != ""}, "max-", training)
