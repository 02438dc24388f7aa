"""The settings of a run: a file's under those of flags, with this machine's paths and the size of a fleet file."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from common.config import Config
from common.errors import ConfigurationError
from common.fleet import is_fleet_file, read_fleet
from common.methods.dac import DACSettings
from common.methods.fednas import FedNASSettings
from common.paths import user_path
from common.presets import without_preset
from common.toml_file import read_toml


def merge(
    file: Path | None,
    flags: Mapping[str, Any],
    check: Callable[[Mapping[str, Any]], object] = Config.from_mapping,
    known: Collection[str] = (),
) -> dict[str, Any]:
    """The settings of a TOML file, overridden by the flags; ConfigurationError for a mistake in the file names it.

    `check` raises ConfigurationError for settings that are not those of the command. Either may name a preset, of which
    settings in `known` are taken, all where none are given.
    """
    return {**(_read(file, check, known) if file else {}), **without_preset(flags, known)}


def _read(file: Path, check: Callable[[Mapping[str, Any]], object], known: Collection[str]) -> dict[str, Any]:
    settings = read_toml(file, "the configuration file")
    try:
        settings = without_preset(settings, known)
        check(settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    return settings


def with_absolute_paths(config: Config) -> Config:
    """`config` with every path absolute, so that other processes and a later `--resume` find the same files.

    A function that it names for the data may be called from now on: these are the settings of this process' own user.
    """
    from common.data.function import allow, is_function
    from common.data.sources import HUB, NAMES
    from common.models.darts_space import PUBLISHED

    data, folder, fleet = config.data.data, config.data.data_folder, config.fleet.fleet
    architectures = config.of(DACSettings).architectures
    genotype = config.of(FedNASSettings).fednas_genotype
    changes: dict[str, Any] = {"data-folder": _absolute(folder) if folder else ""}
    allow(data)
    if data not in NAMES and not is_function(data) and not data.startswith(HUB) and user_path(data).exists():
        changes["data"] = _absolute(data)
    if is_fleet_file(fleet):
        changes["fleet"] = _absolute(fleet)
    if architectures:
        changes["architectures"] = _absolute(architectures)
    if genotype and genotype not in PUBLISHED and user_path(genotype).exists():
        changes["fednas-genotype"] = _absolute(genotype)
    return config.changed(changes)


def fit_to_fleet_file(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings`, with as many devices as the fleet file describes when the user named a file but no number."""
    fleet = str(settings.get("fleet", ""))
    if is_fleet_file(fleet) and "devices" not in settings:
        return {**settings, "devices": len(read_fleet(user_path(fleet)))}
    return dict(settings)


def _absolute(path: str) -> str:
    return str(user_path(path).resolve())
