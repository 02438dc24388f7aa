"""What was chosen, as a table for a terminal."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from common.settings import Scalar
from common.wording import MISSING, percent, plain
from feddac.tuning.trials import Choice


def choices_table(choices: Sequence[Choice]) -> Table:
    """A row for each method: its trials, the settings of the best, and how much better they are than its own."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    for heading in ("trials", "pruned", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("chosen settings")
    for heading in ("validation\naccuracy", "of its own\nsettings"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in choices:
        table.add_row(
            one.method,
            str(len(one.trials)),
            str(one.count("pruned")),
            str(one.count("failed")),
            MISSING if one.best is None else settings_text(one.best.settings),
            *(plain(percent(value)) for value in (one.accuracy, one.own_accuracy)),
        )
    return table


def settings_text(settings: Mapping[str, Scalar]) -> str:
    """`learning-rate 0.0312, momentum 0.9`."""
    return ", ".join(f"{key} {_short(value)}" for key, value in settings.items())


def _short(value: Scalar) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
