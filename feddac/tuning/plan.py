"""What is tried for each method of an experiment: its own settings first, then others from the ranges, on one seed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import Config
from common.effects import without_effect
from common.errors import ConfigurationError
from common.fleet import is_fleet_file
from common.methods import contract_of
from common.reading import sha256_of
from common.settings import Scalar
from common.toml_file import read_toml
from feddac.comparison.file_contents import FileContents
from feddac.comparison.folders import PLACES
from feddac.comparison.plan import Experiment, PlannedRun, nearest, read_experiment
from feddac.tuning.ranges import Range, Ranges, fitted, read_ranges


@dataclass(frozen=True)
class TrialRun(PlannedRun):
    """One run of a trial: a method with settings that are tried, in one cell."""

    trial: int

    @property
    def folder(self) -> Path:
        """runs/METHOD/trial-N/CELL."""
        return Path("runs", self.method, f"trial-{self.trial}", self.cell)


@dataclass(frozen=True)
class TunedMethod:
    """A method, the ranges of its settings, and its configuration in each cell as the experiment has it."""

    name: str
    ranges: Mapping[str, Range]
    configs: Mapping[str, Config]

    def reads(self, key: str) -> bool:
        """Whether the method reads a setting."""
        return contract_of(next(iter(self.configs.values())).method.method).reads_setting(key)

    def own(self) -> dict[str, Scalar]:
        """The experiment's own values of the settings that are tried."""
        mapping = next(iter(self.configs.values())).to_mapping()
        return {key: mapping[key] for key in self.ranges}

    def idle(self, values: Mapping[str, Scalar]) -> set[str]:
        """Changed settings, of the experiment or of `values`, that have no effect beside `values` in some cell."""
        return {key for config in self.configs.values() for key in without_effect(config.changed(values))}

    def effective(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Those of `values` that have an effect beside the others; a comparison would refuse the rest."""
        idle = self.idle(values)
        return {key: value for key, value in values.items() if key not in idle}

    def runs(self, trial: int, values: Mapping[str, Scalar]) -> list[TrialRun]:
        """The runs of a trial, one per cell; raises ConfigurationError for values that exclude each other."""
        idle = self.idle(values)
        runs = []
        for cell, config in self.configs.items():
            defaults = Config.from_mapping({"method": config.method.method}).to_mapping()
            whole = config.changed({**values, **{key: defaults[key] for key in idle}})
            runs.append(TrialRun(cell, self.name, config.run.seed, whole, trial))
        return runs

    def identity(self) -> dict[str, Any]:
        """All that the trials depend on, by readable names and ready for JSON; files count by their content."""
        contents = FileContents()
        found: dict[str, Any] = {f"the range of {key}": str(one) for key, one in self.ranges.items()}
        for cell, config in self.configs.items():
            mapping = config.to_mapping()
            if is_fleet_file(config.fleet.fleet):
                mapping["fleet"] = f"a file with the SHA-256 {sha256_of(Path(config.fleet.fleet))}"
            for key, digest in contents.of(config).items():
                mapping[key] = f"{mapping[key]} with the SHA-256 {digest}"
            found |= {f"{key} in {cell}": value for key, value in mapping.items() if key not in PLACES}
        kept: dict[str, Any] = json.loads(json.dumps(found))
        return kept


@dataclass(frozen=True)
class Tuning:
    """An experiment whose methods are tuned on `seed`, which is none of its own; `content` is its file."""

    path: Path
    content: Mapping[str, Any]
    flags: Mapping[str, Any]
    experiment: Experiment
    seed: int
    methods: tuple[TunedMethod, ...]


def read_tuning(path: Path, flags: Mapping[str, Any] | None = None, seed: int | None = None) -> Tuning:
    """The tuning of an experiment file, with `flags` over its [settings], on `seed` or else one above its largest.

    Raises ConfigurationError that names the first mistake: what `read_experiment` refuses, a seed of the experiment, a
    range that no method reads, or that one cannot have.
    """
    experiment = read_experiment(path, flags)
    following = max(experiment.seeds) + 1
    chosen = following if seed is None else seed
    if chosen in experiment.seeds:
        raise ConfigurationError(
            f"--seed {chosen} is one of the experiment's seeds: settings are chosen on another, such as {following}"
        )
    content = read_toml(path, "the experiment file")
    on_seed = read_experiment(path, flags, [chosen])
    try:
        shared, own = read_ranges(content.get("tune"), experiment.methods)
        methods = tuple(_method(name, on_seed, shared, own.get(name, {})) for name in experiment.methods)
        _require_use(shared, on_seed, methods)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    return Tuning(path, content, flags or {}, experiment, chosen, methods)


def _method(name: str, plan: Experiment, shared: Ranges, own: Ranges) -> TunedMethod:
    """The method with those of the `shared` ranges that it reads and that can have an effect, and all of its `own`."""
    configs = {run.cell: run.config for run in plan.runs if run.method == name}
    first = next(iter(configs.values()))
    contract = contract_of(first.method.method)
    read = {key: one for key, one in shared.items() if contract.reads_setting(key)}
    for key in own:
        if not contract.reads_setting(key):
            known = [one for one in first.to_mapping() if contract.reads_setting(one)]
            hint = nearest(key, known) if key not in first.to_mapping() else ""
            raise ConfigurationError(f"[tune.methods.{name}] {key} has no effect: the method does not read it{hint}")
    ranges = {key: fitted(key, one, first) for key, one in {**read, **own}.items()}
    for key in ranges:
        if len({config.to_mapping()[key] for config in configs.values()}) > 1:
            raise ConfigurationError(f"[tune] {key} is varied by [grid]; drop one of them")
    whole = TunedMethod(name, ranges, configs)
    useful = {key: one for key, one in ranges.items() if _can_matter(key, whole)}
    for key in own:
        if key not in useful:
            reason = without_effect(first.changed({key: _other_value(ranges[key], first.to_mapping()[key])})).get(key)
            raise ConfigurationError(f"[tune.methods.{name}] {reason or f'{key} has one value alone'}")
    return TunedMethod(name, useful, configs)


def _can_matter(key: str, method: TunedMethod) -> bool:
    """Whether some value of the setting has an effect while the others are as they are, or at an end of their range."""
    own = method.own()
    firsts = {one: values.extremes()[0] for one, values in method.ranges.items()}
    lasts = {one: values.extremes()[-1] for one, values in method.ranges.items()}
    value = _other_value(method.ranges[key], own[key])
    return value != own[key] and any(key in method.effective({**others, key: value}) for others in (own, firsts, lasts))


def _other_value(one: Range, own: Scalar) -> Scalar:
    """A value of the range that is not the experiment's own, if there is any."""
    return next((value for value in one.extremes() if value != own), own)


def _require_use(shared: Ranges, plan: Experiment, methods: tuple[TunedMethod, ...]) -> None:
    """Raise ConfigurationError for a range that no method has taken, and for a method without any."""
    for key in shared:
        if not any(key in method.ranges for method in methods):
            known = plan.runs[0].config.to_mapping()
            if key not in known:
                raise ConfigurationError(f"[tune] unknown setting {key!r}{nearest(key, known)}")
            raise ConfigurationError(
                f"[tune] {key} has no effect: none of the methods reads it as it is set up, or the range has the "
                "experiment's own value alone"
            )
    for method in methods:
        if not method.ranges:
            raise ConfigurationError(
                f"nothing of [tune] has an effect on the method {method.name}: give it a range in "
                f"[tune.methods.{method.name}]"
            )
