"""The result as rows of text, shared by the terminal, comparison.md and comparison.html."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from feddac.comparison.collect import CellResult, MethodResult
from feddac.comparison.plan import Cell, Experiment
from feddac.comparison.statistics import Difference, Spread
from server.report.wording import MISSING, NARROW_SPACE, count, duration, percent, size

HEADINGS = (
    "method",
    "accuracy",
    "of all devices",
    "worst device",
    "difference [95 %]",
    "p",
    "per cohort",
    "MACs (range)",
    "parameters",
    "peak memory",
    "MACs per device and round",
    "bytes down",
    "bytes up",
    "simulated time",
    "server time",
    "server memory",
    "epochs on reference",
    "time",
    "devices with a model",
    "over budget",
    "target accuracy",
    "rounds to target",
    "simulated time to target",
    "bytes to target",
    "device MACs to target",
    "seeds",
)
"""The first column is text, the others are figures."""


def columns(*headings: str) -> tuple[int, ...]:
    """Where these HEADINGS stand."""
    return tuple(map(HEADINGS.index, headings))


QUALITY = columns(*HEADINGS[: HEADINGS.index("per cohort") + 1], "devices with a model", "seeds")
COST = columns("method", *HEADINGS[HEADINGS.index("MACs (range)") : HEADINGS.index("simulated time")], "over budget")
TIME = columns("method", *HEADINGS[HEADINGS.index("simulated time") : HEADINGS.index("time") + 1])
PACE = columns("method", *HEADINGS[HEADINGS.index("target accuracy") : -1])
TABLES = (QUALITY, COST, TIME, PACE)
"""Columns of the tables that a page has for each cell; each fits a screen of 1280 pixels."""

ON_TERMINAL = columns(
    *("method", "accuracy", "of all devices", "difference [95 %]", "p", "worst device", "MACs (range)"),
    *(
        "MACs per device and round",
        "bytes down",
        "bytes up",
        "simulated time",
        "epochs on reference",
        "server time",
        "server memory",
        "parameters",
        "peak memory",
    ),
    "time",
)
"""Columns in the order in which a terminal should have them."""


@dataclass(frozen=True)
class CellTable:
    """One cell's table: its title, and a row per method as HEADINGS say."""

    title: str
    rows: tuple[tuple[str, ...], ...]


def cell_tables(results: Iterable[CellResult]) -> list[CellTable]:
    """The table of each cell."""
    return [CellTable(title_of(one.cell), tuple(_row(method, one.target) for method in one.methods)) for one in results]


def title_of(cell: Cell) -> str:
    """`partition iid, devices 4`; `all runs` where there is no grid."""
    return ", ".join(f"{axis} {label}" for axis, label in cell.labels.items()) or "all runs"


def notes(experiment: Experiment) -> list[str]:
    """How to read the tables, one sentence each."""
    seeds = ", ".join(map(str, experiment.seeds))
    several = f"{len(experiment.seeds)} seeds ({seeds})" if len(experiment.seeds) > 1 else f"one seed ({seeds})"
    return [
        f"Mean ± standard deviation over {several}.",
        "Accuracy is of the test set, averaged over devices; the test set is only reported, nothing is chosen by it. "
        "Where not all devices have a model, it says of how many it is; of all devices: those without one guess (one "
        "over the number of classes). The worst device, plots, differences and targets are of all devices. "
        "Per cohort: largest architecture first. MACs, parameters and peak memory: mean over devices.",
        f"Difference: to {experiment.baseline}, in percentage points, over the seeds both have, with its 95 % "
        "confidence interval and the p of the two-sided paired t-test, not corrected for the number of comparisons; "
        f"{MISSING} where fewer than two seeds are shared. Where the difference is exactly the same for all of them, "
        "no deviation can be estimated and there is neither interval nor test.",
        "MACs per device and round: of its whole work, all passes over all its images. Server time and memory: of the "
        "method itself, search or pretraining included, without waiting and testing; epochs on reference: passes over "
        "the server's images that the most trained model has behind it.",
        "Simulated time: of all rounds on the devices that are played, the slowest device of each, without the "
        "server. To target: what had been spent, by all devices together, when the mean accuracy over devices first "
        f"reached the target; {MISSING} where a seed never did. "
        + (
            "The target is the experiment's."
            if experiment.target is not None
            else "The target is the highest accuracy that every run of the setting had at some time."
        ),
        "Over budget: devices that had to hold a model larger than they can.",
    ]


def markdown(experiment: Experiment, results: Sequence[CellResult], failures: Sequence[tuple[str, str]]) -> str:
    """comparison.md; `failures` are (run, reason)."""
    lines = [f"# {experiment.title}", ""]
    for table in cell_tables(results):
        lines += [f"## {table.title}", ""]
        for columns in TABLES:
            lines += [_markdown_row(HEADINGS, columns), "|---" + "|---:" * (len(columns) - 1) + "|"]
            lines += [*(_markdown_row(row, columns) for row in table.rows), ""]
    lines += [f"- {note}" for note in notes(experiment)]
    if failures:
        lines += ["", "## Runs that failed", "", *(f"- {run}: {reason}" for run, reason in failures)]
    return "\n".join(lines) + "\n"


def rich_table(table: CellTable, width: int) -> Table:
    """One cell for a terminal of `width` letters: as many columns as it has room for, at least two."""
    for columns in (ON_TERMINAL[:last] for last in range(len(ON_TERMINAL), 1, -1)):
        shown = Table(title=table.title, title_justify="left", box=SIMPLE_HEAD)
        for column in columns:
            shown.add_column(HEADINGS[column], justify="right" if column else "left", no_wrap=True)
        for row in table.rows:
            shown.add_row(*(row[column].replace(NARROW_SPACE, " ") for column in columns))
        if Measurement.get(Console(width=10 * width), Console(width=10 * width).options, shown).maximum <= width:
            break
    return shown


def with_deviation(value: Spread, words: Callable[[float], str]) -> str:
    """`84.3 % ± 0.4 %`; the mean alone where one seed is known."""
    return words(value.mean) if math.isnan(value.deviation) else f"{words(value.mean)} ± {words(value.deviation)}"


def _row(method: MethodResult, target: float) -> tuple[str, ...]:
    of, at = method.spreads, method.to_target
    low, high = method.macs_range
    served = f"{of['devices_served'].mean:g} of {method.devices}" if method.outcomes else MISSING
    partly = f" ({served})" if of["devices_served"].mean < method.devices else ""
    return (
        method.name,
        with_deviation(of["accuracy"], percent) + partly,
        with_deviation(of["fleet_accuracy"], percent),
        with_deviation(of["worst_accuracy"], percent),
        *_difference(method.difference),
        " / ".join(percent(rank.mean) for rank in method.ranks) or MISSING,
        f"{count(of['macs'].mean)} ({count(low)} to {count(high)})" if low < high else count(of["macs"].mean),
        count(of["params"].mean),
        size(of["peak_memory_bytes"].mean),
        count(of["device_macs_per_round"].mean),
        size(of["bytes_down"].mean),
        size(of["bytes_up"].mean),
        duration(of["simulated_seconds"].mean),
        duration(of["server_seconds"].mean),
        size(of["server_bytes"].mean),
        _number(of["epochs_on_reference"].mean),
        duration(of["seconds"].mean),
        served,
        _number(of["over_budget"].mean),
        percent(target),
        _number(at["round"].mean),
        duration(at["simulated_seconds"].mean),
        size(at["bytes"].mean),
        count(at["device_macs"].mean),
        str(len(method.outcomes)),
    )


def _difference(value: Difference | None) -> tuple[str, str]:
    if value is None:
        return "baseline", ""
    if math.isnan(value.half_width):
        return f"{100 * value.mean:+.1f}" if value.pairs > 1 else MISSING, MISSING
    low, high = value.mean - value.half_width, value.mean + value.half_width
    return f"{100 * value.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]", _p(value.p)


def _number(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else MISSING


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _markdown_row(row: Sequence[str], columns: Iterable[int]) -> str:
    cells = (row[column].replace("|", "\\|").replace(NARROW_SPACE, " ") for column in columns)
    return "| " + " | ".join(cells) + " |"
