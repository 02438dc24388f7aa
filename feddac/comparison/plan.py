"""From an experiment file to runs: every grid cell x seed x method with its whole configuration.

    title = "Cohorts against overlap"
    seeds = [0, 1, 2]
    baseline = "cohort"                 # the method others are tested against (default: the first)
    target = 0.5                        # costs are compared at this accuracy (default: the highest that all reach)
    [settings]                          # of every run: any key of `feddac simulate --config`
    data = "fashion-mnist"
    [grid]                              # optional: every combination of these is a cell, compared apart
    partition = ["iid", "classes:2"]
    scale = [{label = "small", devices = 4, rounds = 5}, {label = "large", devices = 16, rounds = 20}]
    [methods.cohort]                    # at least one: the settings by which it differs
    [methods.overlap]
    aggregation = "overlap"

An axis of the grid is a setting with its values, or a free name with tables of settings that vary together. Several
grids over the same axes, [[grid]], have the cells of all of them. Files named in the experiment are looked for beside
it first, then in the working folder. A table [tune] is for `feddac tune` (feddac/tuning/ranges.py) and changes no run.
"""

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from common.config import Config
from common.effects import require_effect, without_effect
from common.errors import BudgetError, ConfigurationError
from common.fleet import virtual_fleet
from common.groups import MethodSettings
from common.methods import contract_of
from common.presets import without_preset
from common.toml_file import read_toml
from feddac.resolve import fit_to_fleet_file, with_absolute_paths
from server.sampling import epoch_range

SHIPPED = Path(__file__).resolve().parent / "experiments"
"""Experiment files that come with FedDAC; `feddac compare NAME` finds NAME.toml there."""

KEYS = ("title", "seeds", "baseline", "target", "settings", "grid", "methods", "tune")
RESERVED = {"seed": "give seeds = [...] at the top of the file", "out": "give --out on the command line"}
FILE_SETTINGS = ("data", "fleet", "architectures", "fednas-genotype")

Table: TypeAlias = dict[str, Any]

Axes: TypeAlias = dict[str, list[tuple[str, Table]]]
"""For each axis of a grid the label and the settings of each of its values."""


@dataclass(frozen=True)
class Cell:
    """One combination of grid values: its folder name and the label of each axis' value, in the file's order."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class PlannedRun:
    """One run; `folder` is relative to the comparison's."""

    cell: str
    method: str
    seed: int
    config: Config

    @property
    def folder(self) -> Path:
        """CELL/METHOD/seed-N."""
        return Path(self.cell, self.method, f"seed-{self.seed}")

    @property
    def title(self) -> str:
        """How a person names it."""
        return f"{self.cell} / {self.method} / seed {self.seed}"


@dataclass(frozen=True)
class Experiment:
    """What is compared; `methods` maps a name to the settings by which it differs; `runs`: cell by seed by method."""

    title: str
    seeds: tuple[int, ...]
    baseline: str
    methods: Mapping[str, Mapping[str, Any]]
    cells: tuple[Cell, ...]
    runs: tuple[PlannedRun, ...]
    target: float | None = None


def find_experiment(name: str) -> Path:
    """The file called `name`, or the one that FedDAC ships under that name; raises ConfigurationError."""
    if Path(name).is_file():
        return Path(name)
    shipped = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    if name in shipped:
        return SHIPPED / f"{name}.toml"
    raise ConfigurationError(f"there is no experiment file {name}; those that come with FedDAC: {', '.join(shipped)}")


def read_experiment(
    path: Path, flags: Mapping[str, Any] | None = None, seeds: Sequence[int] | None = None
) -> Experiment:
    """The experiment of a file, with `flags` over its [settings] and `seeds` instead of its own.

    Raises ConfigurationError that names the file and key of the first mistake; the configuration of every run has been
    checked when this returns, except for what only its data can tell.
    """
    content = read_toml(path, "the experiment file")
    try:
        return _experiment(content, path, flags or {}, seeds)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _experiment(content: Table, path: Path, flags: Mapping[str, Any], seeds: Sequence[int] | None) -> Experiment:
    for key in content:
        if key not in KEYS:
            raise ConfigurationError(f"unknown key {key!r}{nearest(key, KEYS)}")
    title = content.get("title", path.stem)
    if not isinstance(title, str):
        raise ConfigurationError(f"title must be a text, not {title!r}")
    chosen = _seeds(content.get("seeds", [0]) if seeds is None else list(seeds))
    flags = without_preset(flags)
    for key in flags:
        if key in RESERVED:
            raise ConfigurationError(f"{key} cannot be set for all runs: {RESERVED[key]}")
    settings = {**_settings(content.get("settings", {}), "settings"), **flags}
    methods = _methods(content.get("methods", {}))
    grids = _grids(content.get("grid", {}))
    varied = {key: axis for axes in grids for axis, values in axes.items() for _, table in values for key in table}
    for key in flags:
        if key in varied or any(key in table for table in methods.values()):
            raise ConfigurationError(f"--{key} has no effect: the experiment varies {key}; change it in the file")
    for name, table in methods.items():
        for key in table:
            if key in varied:
                raise ConfigurationError(f"[methods.{name}] {key} is varied by [grid] {varied[key]}; drop one of them")
    baseline = content.get("baseline", next(iter(methods)))
    if not isinstance(baseline, str) or baseline not in methods:
        raise ConfigurationError(f"baseline {baseline!r} is none of the methods{nearest(str(baseline), methods)}")
    cells: list[Cell] = []
    runs: list[PlannedRun] = []
    unused = set(settings)
    for combination in itertools.chain.from_iterable(itertools.product(*axes.values()) for axes in grids):
        labels = {axis: label for axis, (label, _) in zip(grids[0], combination, strict=True)}
        cell = Cell(_folder_name(labels), labels)
        if any(one.name == cell.name for one in cells):
            raise ConfigurationError(f"[grid] two cells would be called {cell.name}; give their values other labels")
        cells.append(cell)
        of_cell = {key: value for _, table in combination for key, value in table.items()}
        for seed, (name, table) in itertools.product(chosen, methods.items()):
            where = f"cell {cell.name}, method {name}"
            own = {**of_cell, **table, "seed": seed}
            config, used = _config(settings, own, path, where)
            unused -= used
            runs.append(PlannedRun(cell.name, name, seed, config))
    for key in (key for key in settings if key in unused):
        raise ConfigurationError(f"[settings] {key} has no effect: none of the methods reads it as it is set up")
    return Experiment(title, chosen, baseline, methods, tuple(cells), tuple(runs), _target(content.get("target")))


def _config(settings: Table, own: Table, path: Path, where: str) -> tuple[Config, set[str]]:
    """The whole configuration of a run, with absolute paths, and which of the `settings` of every run it uses.

    Those that its method does not read, or that cannot have an effect beside the run's `own`, are for other runs. What
    can be checked without data has been.
    """
    contract = contract_of(str(own.get("method", settings.get("method", MethodSettings().method))))
    used = {key for key in settings if contract.reads_setting(key)}
    try:
        used -= without_effect(_whole({**_chosen(settings, used), **own}, path)).keys() - own.keys()
        config = _whole({**_chosen(settings, used), **own}, path)
        require_effect(config)
        virtual_fleet(config.fleet, config.federation.local_training)
        epoch_range(config.federation.local_epochs)
    except (ConfigurationError, BudgetError) as error:
        raise ConfigurationError(f"{where}: {error}") from None
    return config, used


def _whole(settings: Table, path: Path) -> Config:
    return with_absolute_paths(Config.from_mapping(fit_to_fleet_file(beside(settings, path.parent))))


def _chosen(settings: Table, keys: set[str]) -> Table:
    return {key: value for key, value in settings.items() if key in keys}


def beside(settings: Table, folder: Path) -> Table:
    """`settings` with the files that lie in `folder` by their absolute paths."""
    from common.data.sources import NAMES
    from common.models.darts_space import PUBLISHED

    known = {"data": NAMES, "fednas-genotype": tuple(PUBLISHED)}
    named = {key: settings[key] for key in FILE_SETTINGS if isinstance(settings.get(key), str)}
    found = {
        key: str((folder / name).resolve())
        for key, name in named.items()
        if name and name not in known.get(key, ()) and (folder / name).exists()
    }
    return {**settings, **found}


def _target(given: Any) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= 1:
        raise ConfigurationError(f"target must be an accuracy above 0 and at most 1, not {given!r}")
    return float(given)


def _seeds(given: Any) -> tuple[int, ...]:
    whole = isinstance(given, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in given)
    if not whole or not given or min(given) < 0 or max(given) >= 2**63 or len(set(given)) < len(given):
        raise ConfigurationError(f"seeds must be a list of different whole numbers from 0 to 2^63 - 1, not {given!r}")
    return tuple(given)


def _methods(given: Any) -> dict[str, Table]:
    if not isinstance(given, dict) or not given:
        raise ConfigurationError("methods must hold at least one table, such as [methods.dac]")
    for name in given:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
            raise ConfigurationError(f"methods: {name!r} cannot name a folder; use letters, digits, '.', '_', '+', '-'")
    return {name: _settings(table, f"methods.{name}") for name, table in given.items()}


def _grids(given: Any) -> list[Axes]:
    """All grids of the file, at least one; that of a file without any has no axis."""
    given = given if isinstance(given, list) else [given]
    if not given or not all(isinstance(one, dict) for one in given):
        raise ConfigurationError("grid must be a table, or several as [[grid]]")
    for other in given[1:]:
        if list(other) != list(given[0]):
            raise ConfigurationError(
                f"every [[grid]] must have the same axes in the same order: {', '.join(given[0])}, not "
                f"{', '.join(other)}"
            )
    return [_axes(one) for one in given]


def _axes(given: Table) -> Axes:
    axes = {}
    for axis, values in given.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"[grid] {axis} must be a list of at least one value, not {values!r}")
        if all(isinstance(value, dict) for value in values):
            axes[axis] = [_together(axis, value) for value in values]
        else:
            axes[axis] = [(label_of(value), _settings({axis: value}, "grid")) for value in values]
    keys = [key for values in axes.values() for key in {key for _, table in values for key in table}]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigurationError(f"[grid] {key} is varied by two axes; drop one of them")
    return axes


def _together(axis: str, value: Table) -> tuple[str, Table]:
    table = {key: one for key, one in value.items() if key != "label"}
    label = value.get("label", " ".join(label_of(one) for one in table.values()))
    if not isinstance(label, str) or not label.strip():
        raise ConfigurationError(f"[grid] {axis}: label must be a text that is not empty, not {label!r}")
    return label, _settings(table, f"grid.{axis}")


def _settings(given: Any, where: str) -> Table:
    """A table of settings, each of which is known and has a possible value."""
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where} must be a table of settings, not {given!r}")
    for key in given:
        if key in RESERVED:
            raise ConfigurationError(f"[{where}] {key} cannot be set here: {RESERVED[key]}")
    try:
        settings = without_preset(given)
        Config.from_mapping(settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"[{where}] {error}") from None
    return settings


def label_of(value: Any) -> str:
    """How a value of a grid is called where the file gives it no label."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _folder_name(labels: Mapping[str, str]) -> str:
    """`partition-classes-2_devices-4`; `all` where there is no grid."""
    parts = [re.sub(r"[^A-Za-z0-9.]+", "-", f"{axis}-{label}").strip("-.") for axis, label in labels.items()]
    return "_".join(parts) or "all"


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The end of a message about an unknown name: which of the `known` was meant, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
