"""The [tune] table of an experiment file: which settings are tried, and in which ranges.

    [tune]                              # for every method that reads the setting
    learning-rate = {low = 0.003, high = 0.3, log = true}
    momentum = [0.0, 0.5, 0.9]
    [tune.methods.fedprox]              # for this method as well, or instead
    proximal-coefficient = {low = 0.001, high = 1.0, log = true}

Without the table the learning rate of the devices is tried, from 0.003 to 0.3. What a method is scored on cannot be
tried: data, devices and the number of rounds are the same for all.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from common.config import Config
from common.errors import ConfigurationError
from common.groups import DataSettings, FleetSettings, RunSettings
from common.settings import Scalar, keys_of
from common.wording import number_of
from feddac.comparison.plan import nearest

Ranges: TypeAlias = dict[str, "Range"]
"""The range of each setting that is tried, by its key."""

SCORED_ON = (
    keys_of(DataSettings, FleetSettings, RunSettings)
    .difference(("augment", "max-cohorts"))
    .union(("method", "rounds", "evaluate-every", "patience", "device-evaluation", "test-batch-size"))
)
"""Settings that decide what a method is scored on, or how long it may learn; they are part of the question."""


@dataclass(frozen=True)
class Range:
    """Where a setting is looked for: among `choices`, or from `low` to `high`, both included.

    With `log` every factor is as likely as another, as suits a rate.
    """

    choices: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def holds(self, value: Scalar) -> bool:
        """Whether the range could yield `value`."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def rounded(self, value: Scalar) -> Scalar:
        """A value of the range with four significant digits, as near as the range allows; choices are as they are."""
        if self.choices or not isinstance(value, float):
            return value
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def extremes(self) -> tuple[Scalar, ...]:
        """Both ends, or all choices: what must be possible for the whole range to be."""
        return self.choices or (self.low, self.high)

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(str(one) for one in self.choices)
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")


DEFAULT: Mapping[str, Any] = {"learning-rate": {"low": 0.003, "high": 0.3, "log": True}}
"""The [tune] table of a file that has none."""


def read_ranges(given: Any, methods: Mapping[str, object]) -> tuple[Ranges, dict[str, Ranges]]:
    """The ranges for all methods, and those for single ones by their names.

    `given` is the table of the file, None where there is none. Raises ConfigurationError that names the first mistake;
    whether the values suit the settings is checked by `fitted`.
    """
    table = DEFAULT if given is None else given
    if not isinstance(table, dict) and table is not DEFAULT:
        raise ConfigurationError(f"tune must be a table of ranges, such as [tune], not {table!r}")
    single = table.get("methods", {})
    if not isinstance(single, dict):
        raise ConfigurationError(f"tune.methods must hold tables, such as [tune.methods.fedprox], not {single!r}")
    for name, ranges in single.items():
        if name not in methods:
            raise ConfigurationError(f"[tune.methods.{name}] is none of the methods{nearest(name, methods)}")
        if not isinstance(ranges, dict):
            raise ConfigurationError(f"tune.methods.{name} must be a table of ranges, not {ranges!r}")
    shared = {key: _range(key, one, "tune") for key, one in table.items() if key != "methods"}
    own = {
        name: {key: _range(key, one, f"tune.methods.{name}") for key, one in ranges.items()}
        for name, ranges in single.items()
    }
    if not shared and not any(own.values()):
        raise ConfigurationError("[tune] names no setting; give one a range, such as learning-rate = [0.01, 0.1]")
    return shared, own


def fitted(key: str, one: Range, config: Config) -> Range:
    """The range with values of the setting's own kind; raises ConfigurationError where they are not possible."""
    if not one.choices and isinstance(config.to_mapping()[key], bool | str):
        raise ConfigurationError(f"[tune] {key} is no number: give a list of values instead of low and high")
    values = [config.changed({key: value}).to_mapping()[key] for value in one.extremes()]
    if one.choices:
        return Range(choices=tuple(dict.fromkeys(values)))
    low, high = (value for value in values if isinstance(value, int | float))
    return Range(low=low, high=high, log=one.log)


def _range(key: str, given: Any, where: str) -> Range:
    if key in SCORED_ON:
        raise ConfigurationError(f"[{where}] {key} cannot be tried: it must be the same for all, so that they compare")
    if isinstance(given, list):
        if not given or not all(isinstance(one, bool | int | float | str) for one in given):
            raise ConfigurationError(f"[{where}] {key} must list at least one value, not {given!r}")
        return Range(choices=tuple(given))
    if not isinstance(given, dict):
        raise ConfigurationError(
            f"[{where}] {key} must be a list of values or {{low = ..., high = ...}}, not {given!r}"
        )
    for part in given:
        if part not in ("low", "high", "log"):
            raise ConfigurationError(f"[{where}] {key}: unknown key {part!r}{nearest(part, ('low', 'high', 'log'))}")
    low, high = number_of(given.get("low")), number_of(given.get("high"))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigurationError(f"[{where}] {key} needs numbers low and high with low below high, not {given!r}")
    log = given.get("log", False)
    if not isinstance(log, bool) or (log and low <= 0):
        raise ConfigurationError(f"[{where}] {key}: log must be true or false, and with true low above 0: {given!r}")
    return Range(low=low, high=high, log=log)
