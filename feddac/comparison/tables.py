"""The result as rows of text, shared by the terminal, comparison.md and comparison.html."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from common.wording import MISSING, count, duration, percent, plain, size
from feddac.comparison.collect import CellResult, MethodResult
from feddac.comparison.plan import Cell, Experiment
from feddac.comparison.statistics import LEAST_PAIRS, Difference, Spread

HEADINGS = (
    "method",
    "accuracy",
    "accuracy of all devices",
    "last 20 % of rounds",
    "worst device",
    "per cohort",
    "difference [95 %]",
    "p",
    "p (Holm)",
    "effect size",
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
TESTS = columns(
    "method", "accuracy of all devices", *HEADINGS[HEADINGS.index("difference [95 %]") : HEADINGS.index("MACs (range)")]
)
COST = columns("method", *HEADINGS[HEADINGS.index("MACs (range)") : HEADINGS.index("simulated time")], "over budget")
TIME = columns("method", *HEADINGS[HEADINGS.index("simulated time") : HEADINGS.index("time") + 1])
PACE = columns("method", *HEADINGS[HEADINGS.index("target accuracy") : -1])
TABLES = (QUALITY, TESTS, COST, TIME, PACE)
"""Columns of the tables that a page has for each cell; each fits a screen of 1280 pixels."""

ON_TERMINAL = columns(
    *(
        "method",
        "accuracy of all devices",
        "difference [95 %]",
        "p (Holm)",
        "effect size",
        "last 20 % of rounds",
        "accuracy",
    ),
    *("worst device", "p", "MACs (range)", "MACs per device and round", "bytes down", "bytes up", "simulated time"),
    *("epochs on reference", "server time", "server memory", "parameters", "peak memory", "time"),
)
"""Columns in the order in which a terminal should have them."""


MOST_COHORTS = 5
"""Accuracies of so many cohorts fit a table."""


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
        "Where not all devices have a model, it says of how many it is; in the accuracy of all devices those without "
        "one guess (one over the number of classes). The worst device, plots, differences and targets are of all. "
        "Per cohort: largest architecture first, a range if many. MACs, parameters and peak memory: mean over devices.",
        f"Difference: to {experiment.baseline}, in percentage points, over the seeds both have, with its 95 % "
        f"confidence interval and the p of the two-sided paired t-test. {MISSING} where fewer than {LEAST_PAIRS} seeds "
        "are shared, for two leave one degree of freedom, of which an interval says nothing; and where the difference "
        "is exactly the same for all seeds, so that no deviation can be estimated.",
        "p (Holm): corrected by Holm's step-down procedure for all methods that are compared with "
        f"{experiment.baseline} in the same setting, the question that one table answers. Settings are not corrected "
        "for each other: of many, some show a difference by chance. Intervals are of one comparison each.",
        "Effect size: mean over standard deviation of the paired differences (Cohen's d_z), with Hedges' correction "
        "for few seeds. It is large where seeds agree, however small the difference.",
        "Last 20 % of rounds: mean accuracy over all devices of those of them that were evaluated, at least of the "
        "last; one round alone is up or down by chance.",
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
            lines += [markdown_table(HEADINGS, table.rows, columns)]
    lines += [f"- {note}" for note in notes(experiment)]
    if failures:
        lines += ["", "## Runs that failed", "", *(f"- {run}: {reason}" for run, reason in failures)]
    return "\n".join(lines) + "\n"


def rich_table(table: CellTable, width: int) -> Table:
    """One cell for a terminal of `width` letters: as many columns as it has room for, at least two."""
    for columns in (ON_TERMINAL[:last] for last in range(len(ON_TERMINAL), 1, -1)):
        shown = Table(title=table.title, title_justify="left", box=SIMPLE_HEAD)
        for column in columns:
            shown.add_column(_folded(HEADINGS[column]), justify="right" if column else "left", no_wrap=True)
        for row in table.rows:
            shown.add_row(*(plain(row[column]) for column in columns))
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
        with_deviation(of["late_accuracy"], percent),
        with_deviation(of["worst_accuracy"], percent),
        _by_cohort([rank.mean for rank in method.ranks]),
        *_difference(method.difference),
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


def _by_cohort(accuracies: Sequence[float]) -> str:
    """Each of them, or the range of many: a method without averaged weights has a cohort for every device."""
    if len(accuracies) <= MOST_COHORTS:
        return " / ".join(map(percent, accuracies)) or MISSING
    return f"{percent(min(accuracies))} to {percent(max(accuracies))}"


def _difference(value: Difference | None) -> tuple[str, str, str, str]:
    """Mean and interval, p, p of the family, and effect size."""
    if value is None:
        return "baseline", "", "", ""
    if math.isnan(value.half_width):
        return f"{100 * value.mean:+.1f} [{MISSING}]" if value.pairs else MISSING, MISSING, MISSING, MISSING
    low, high = value.mean - value.half_width, value.mean + value.half_width
    interval = f"{100 * value.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    return interval, _p(value.p), _p(value.corrected_p), f"{value.effect:+.2f}"


def _folded(heading: str) -> str:
    r"""On two lines, cut at the space that leaves them shortest; on one if it has no space.

    >>> _folded("MACs per device and round")
    'MACs per device\nand round'
    """
    words = heading.split(" ")
    cuts = (tuple(" ".join(part) for part in (words[:place], words[place:])) for place in range(1, len(words)))
    return "\n".join(min(cuts, key=lambda lines: max(map(len, lines)), default=(heading,)))


def _number(value: float) -> str:
    return f"{round(value, 1):g}" if math.isfinite(value) else MISSING


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], columns: Sequence[int]) -> str:
    """These columns of the rows, the first of them text; ends in a newline."""
    ruler = "|---" + "|---:" * (len(columns) - 1) + "|"
    return "\n".join([_markdown_row(headings, columns), ruler, *(_markdown_row(row, columns) for row in rows), ""])


def _markdown_row(row: Sequence[str], columns: Iterable[int]) -> str:
    cells = (plain(row[column]).replace("|", "\\|") for column in columns)
    return "| " + " | ".join(cells) + " |"
