"""Whether the experiment's own settings can work at all, asked before any trial; and what would, where they cannot."""

from collections.abc import Mapping

from common.data.sources import load
from common.errors import BudgetError, FedDACError
from common.settings import Scalar
from feddac.tuning.plan import Tuning, read_tuning
from simulation.preflight import check, check_budgets


def check_own_settings(tuning: Tuning) -> None:
    """Raise the error that a run of the experiment's own settings would end with, which names its method.

    A BudgetError has a remedy only where the command itself works with it; else it says what to change in the file.
    """
    for method in tuning.methods:
        for config in method.configs.values():
            try:
                check(config)
            except BudgetError as error:
                text = f"method {method.name}: {error}"
                if _works(tuning, error.remedy):
                    raise BudgetError(text, error.remedy) from None
                raise BudgetError(text + _change(tuning, method.name, error.remedy)) from None
            except FedDACError as error:
                raise type(error)(f"method {method.name}: {error}") from None


def _works(tuning: Tuning, remedy: Mapping[str, Scalar]) -> bool:
    """Whether all methods can be tuned with the settings of `remedy` as flags, which the experiment may vary."""
    try:
        changed = read_tuning(tuning.path, {**tuning.flags, **remedy}, tuning.seed)
        for method in changed.methods:
            for config in method.configs.values():
                check_budgets(config, load(config.data))
    except FedDACError:
        return False
    return True


def _change(tuning: Tuning, method: str, remedy: Mapping[str, Scalar]) -> str:
    """The end of a message: with what it would work, and which table of the file has it; nothing without a remedy.

    A setting that the grid does not vary can be given to the method alone, unless it is a flag.
    """
    if not remedy:
        return ""
    settings = " and ".join(f"{key} = {value!r}" for key, value in remedy.items())
    tables = {"[grid]" if _is_varied(tuning, key) else f"[methods.{method}]" for key in remedy}
    flags = [f"--{key}" for key in remedy if key in tuning.flags]
    instead = f" instead of {', '.join(flags)}" if flags else ""
    return f"; with {settings} it works: change {' and '.join(sorted(tables))} of {tuning.path}{instead}"


def _is_varied(tuning: Tuning, key: str) -> bool:
    given = tuning.content.get("grid", {})
    axes = [axis for grid in (given if isinstance(given, list) else [given]) for axis in grid.items()]
    return any(key == axis or any(isinstance(one, dict) and key in one for one in values) for axis, values in axes)
