"""Settings that depend on this machine: paths, and the size of a fleet file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config import Config
from common.fleet import is_fleet_file, read_fleet


def with_absolute_paths(config: Config) -> Config:
    """`config` with every path absolute, so that other processes and a later `--resume` find the same files.

    A function that it names for the data may be called from now on: these are the settings of this process' own user.
    """
    from common.data.function import allow, is_function
    from common.data.sources import HUB, NAMES

    data, folder, fleet = config.data.data, config.data.data_folder, config.fleet.fleet
    given = config.method.architectures
    allow(data)
    if data not in NAMES and not is_function(data) and not data.startswith(HUB) and Path(data).expanduser().exists():
        data = _absolute(data)
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, data=data, data_folder=_absolute(folder) if folder else ""),
        fleet=dataclasses.replace(config.fleet, fleet=_absolute(fleet) if is_fleet_file(fleet) else fleet),
        method=dataclasses.replace(config.method, architectures=_absolute(given) if given else ""),
    )


def fit_to_fleet_file(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings`, with as many devices as the fleet file describes when the user named a file but no number."""
    fleet = str(settings.get("fleet", ""))
    if is_fleet_file(fleet) and "devices" not in settings:
        return {**settings, "devices": len(read_fleet(Path(fleet).expanduser()))}
    return dict(settings)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())
