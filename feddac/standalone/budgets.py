"""Budgets as a user writes them: lists in flags, or tables in a TOML file."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.bounds import BOUND_KEYS, parse_bounds, parse_milliseconds
from common.budget import USUAL_TRAINING, DeviceBudget, LocalTraining
from common.errors import BudgetError, ConfigurationError
from common.fleet import BUDGET_KEYS, declared_budget, profile_of
from common.groups import FleetSettings
from common.rates import LatencyBound
from common.settings import check_known
from common.toml_file import read_toml

Budgets = dict[str, DeviceBudget]
MAX_BUDGETS = 10_000
LATENCY = "latency-ms"
FLAGS = (*BOUND_KEYS, LATENCY)


def bounds_in_settings(settings: Mapping[str, Any], profile: str = "") -> dict[str, list[str]]:
    """The bounds that kebab-case `settings` of a federated run hold, as `budgets_from_flags` takes them.

    A latency without a `profile` is left out where it is the default, which the config.toml of every run holds: there
    it is for devices, by their own profiles. Raises ConfigurationError for a bound of the wrong type.
    """
    fleet = FleetSettings.picked_from(settings).to_mapping()
    bounds = {name: str(fleet[f"max-{name}"]) for name in FLAGS}
    if f"max-{LATENCY}" not in settings or (not profile and fleet[f"max-{LATENCY}"] == FleetSettings().max_latency_ms):
        del bounds[LATENCY]
    return {name: [text] for name, text in bounds.items() if text}


def budgets_from_flags(
    given: Mapping[str, Sequence[str]], profile: str = "", training: LocalTraining = USUAL_TRAINING
) -> Budgets:
    """Budgets named budget-1, budget-2, ... from flags that may be repeated and hold comma-separated lists.

    `given` has the values of a flag `--max-KEY` under KEY, one of FLAGS. The n-th budget takes the n-th bound of each
    list; a single bound holds for all. A latency is judged by the rates of `profile`; `training` is how the devices
    train. Raises BudgetError for a bound that is no number, ConfigurationError for lists of different lengths, no bound
    at all, or a latency without a profile.
    """
    lists = {}
    for name in FLAGS:
        texts = [text for value in given.get(name, ()) for text in value.split(",")]
        if texts:
            lists[name] = texts
    if not lists:
        flags = ", ".join(f"--max-{name}" for name in FLAGS)
        raise ConfigurationError(f"give at least one budget: {flags} or --budgets FILE")
    length = max(map(len, lists.values()))
    for name, bounds in lists.items():
        if len(bounds) not in (1, length):
            raise ConfigurationError(
                f"--max-{name} has {len(bounds)} bounds where another flag has {length}: give as many, or one for all"
            )
    rows = [{name: bounds[n % len(bounds)] for name, bounds in lists.items()} for n in range(length)]
    return {f"budget-{number}": _budget(row, profile, training) for number, row in enumerate(rows, start=1)}


def _budget(row: Mapping[str, str], profile: str, training: LocalTraining) -> DeviceBudget:
    bounds = {f"--max-{name}": text for name, text in row.items()}
    budget = parse_bounds(bounds, "--max-", training)
    if LATENCY not in row:
        return budget
    if not profile:
        raise ConfigurationError(f"--max-{LATENCY} needs --profile, by whose rates the time of an image is judged")
    milliseconds = parse_milliseconds(row[LATENCY], f"--max-{LATENCY}")
    return replace(budget, latency=LatencyBound.by(profile_of(profile).rates, milliseconds))


def is_budget_name(name: str) -> bool:
    """Whether a budget may be called so: it becomes the name of files."""
    return re.fullmatch(r"[a-z0-9-]{1,64}", name) is not None


def budgets_from_file(path: Path, training: LocalTraining = USUAL_TRAINING) -> Budgets:
    """Budgets from the `[[budget]]` tables of a TOML file, with a name and `common.fleet.BUDGET_KEYS`.

    Bounds are numbers or texts such as "3M" or "512KB", and a latency needs a profile; a table without a name becomes
    budget-N. `training` is how the devices train. Raises
    ConfigurationError for a file that is not of this form and BudgetError for a bound that is no number.
    """
    content = read_toml(path, "the budget file")
    tables = content.get("budget")
    if (
        set(content) != {"budget"}
        or not isinstance(tables, list)
        or not tables
        or not all(isinstance(one, dict) for one in tables)
    ):
        raise ConfigurationError(f"the budget file {path} must hold [[budget]] tables and nothing else")
    if len(tables) > MAX_BUDGETS:
        raise ConfigurationError(f"{path} holds {len(tables):,} budgets; one search takes at most {MAX_BUDGETS:,}")
    budgets: Budgets = {}
    for number, table in enumerate(tables, start=1):
        where = f"{path}, budget {number}"
        try:
            check_known(table, ["name", *BUDGET_KEYS])
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None
        name = str(table.get("name", f"budget-{number}"))
        if not is_budget_name(name):
            raise ConfigurationError(f"{where}: a name is made of up to 64 of a to z, 0 to 9 and -, not {name!r:.80}")
        if name in budgets:
            raise ConfigurationError(f"{where}: there is another budget called {name}")
        budgets[name] = _bounds(table, where, training)
    return budgets


def _bounds(table: Mapping[str, Any], where: str, training: LocalTraining) -> DeviceBudget:
    if not set(table) & set(FLAGS):
        raise BudgetError(f"{where}: give at least one of {', '.join(FLAGS)}")
    return declared_budget(table, where, training)[0]
