"""What a person sees: progress while a run works, and the table of its result."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from common.progress import Progress
from server.report.record import Cohort
from server.report.wording import NARROW_SPACE, count, percent, printable, size


@contextmanager
def show_progress(console: Console) -> Iterator[Progress]:
    """Bars on a terminal, short lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = [
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", markup=False),
    ]
    with Bars(*columns, console=console) as bars:
        yield Terminal(bars)


class Terminal:
    """Progress as one bar per stage; it stays on the screen when the stage is over."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def start(self, stage: str, total: int) -> None:
        """Add the stage's bar, or begin it again."""
        if stage in self._tasks:
            self._bars.reset(self._tasks[stage], total=total, message="")
        else:
            self._tasks[stage] = self._bars.add_task(stage, total=total, message="")

    def advance(self, stage: str, units: int, message: str) -> None:
        """Move the stage's bar."""
        self._bars.update(self._tasks[stage], advance=units, message=printable(message))

    def finish(self, stage: str, message: str) -> None:
        """Fill the stage's bar."""
        task = self._tasks[stage]
        total = next(one.total for one in self._bars.tasks if one.id == task)
        self._bars.update(task, completed=total, message=printable(message))

    def note(self, message: str) -> None:
        """Print above the bars."""
        self._bars.console.print(Text(printable(message, 1000), style="yellow"))


class Lines:
    """Progress as plain lines, at most ten per stage and one per note."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}

    def start(self, stage: str, total: int) -> None:
        """Print nothing yet."""
        self._done[stage], self._total[stage] = 0, max(total, 1)

    def advance(self, stage: str, units: int, message: str) -> None:
        """Print a line when another tenth of the stage is done."""
        before = self._done[stage] * 10 // self._total[stage]
        self._done[stage] += units
        if self._done[stage] * 10 // self._total[stage] > before:
            self._print(f"{stage} {self._done[stage]}/{self._total[stage]}: {printable(message)}")

    def finish(self, stage: str, message: str) -> None:
        """Print the stage's result."""
        self._print(f"{stage}: {printable(message)}")

    def note(self, message: str) -> None:
        """Print the note."""
        self._print(f"note: {printable(message, 1000)}")

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


def result_table(cohorts: Iterable[Cohort]) -> Table:
    """The cohorts of a finished run: what their model costs, how good it is, what its devices and the network did."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("cohort", no_wrap=True)
    for heading in (
        "devices",
        "MACs",
        "parameters",
        "peak\nmemory",
        "accuracy",
        "MACs per\nround",
        "bytes\ndown",
        "bytes\nup",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for cohort in cohorts:
        figures = (
            str(cohort.devices),
            count(cohort.macs),
            count(cohort.params),
            size(cohort.peak_memory_bytes),
            percent(cohort.accuracy),
            count(cohort.device_macs_per_round),
            size(cohort.bytes_down),
            size(cohort.bytes_up),
        )
        table.add_row(cohort.name, *(figure.replace(NARROW_SPACE, " ") for figure in figures))
    return table
