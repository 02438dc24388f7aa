"""Budgets as a user writes them: lists in flags, or tables in a TOML file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.budget import DeviceBudget, parse_bounds
from common.errors import BudgetError, ConfigurationError
from common.settings import check_known
from common.toml_file import read_toml

Budgets = dict[str, DeviceBudget]
MAX_BUDGETS = 10_000
_BOUNDS = ("macs", "params", "memory")


def budgets_from_flags(max_macs: Sequence[str], max_params: Sequence[str], max_memory: Sequence[str]) -> Budgets:
    """Budgets named budget-1, budget-2, ... from flags that may be repeated and hold comma-separated lists.

    The n-th budget takes the n-th bound of each list; a single bound holds for all. Raises BudgetError for a bound
    that is no number, ConfigurationError for lists of different lengths or no bound at all.
    """
    lists = {}
    for name, given in zip(_BOUNDS, (max_macs, max_params, max_memory), strict=True):
        texts = [text for value in given for text in value.split(",")]
        if texts:
            lists[name] = texts
    if not lists:
        raise ConfigurationError("give at least one budget: --max-macs, --max-params, --max-memory or --budgets FILE")
    length = max(map(len, lists.values()))
    for name, bounds in lists.items():
        if len(bounds) not in (1, length):
            raise ConfigurationError(
                f"--max-{name} has {len(bounds)} bounds where another flag has {length}: give as many, or one for all"
            )
    rows = [{f"--max-{name}": bounds[n % len(bounds)] for name, bounds in lists.items()} for n in range(length)]
    return {f"budget-{number}": parse_bounds(row, "--max-") for number, row in enumerate(rows, start=1)}


def budgets_from_file(path: Path) -> Budgets:
    """Budgets from the `[[budget]]` tables of a TOML file, with the keys name, macs, params and memory.

    Bounds are numbers or texts such as "3M" or "512KB"; a table without a name becomes budget-N. Raises
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
            check_known(table, ["name", *_BOUNDS])
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None
        name = str(table.get("name", f"budget-{number}"))
        if not re.fullmatch(r"[a-z0-9-]{1,64}", name):  # it becomes the name of files
            raise ConfigurationError(f"{where}: a name is made of up to 64 of a to z, 0 to 9 and -, not {name!r:.80}")
        if name in budgets:
            raise ConfigurationError(f"{where}: there is another budget called {name}")
        budgets[name] = _bounds(table, where)
    return budgets


def _bounds(table: Mapping[str, Any], where: str) -> DeviceBudget:
    if not set(table) & set(_BOUNDS):
        raise BudgetError(f"{where}: give at least one of macs, params and memory")
    try:
        return parse_bounds(table)
    except BudgetError as error:
        raise BudgetError(f"{where}: {error}") from None
