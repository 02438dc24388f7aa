"""What a person sees: progress while a run works, and the table of its result."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from common.progress import Progress, Silent
from common.wording import count, duration, percent, plain, plural, printable, size

if TYPE_CHECKING:
    from server.report.record import Cohort, Run

NEWS_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0
RESUMED_SECONDS = 0.2
WIDE = 200
MOST_NAMES = 6

_quiet = ContextVar("quiet", default=False)


@contextmanager
def quiet(wanted: bool) -> Iterator[None]:
    """Inside the block `show_progress` shows nothing, if that is wanted."""
    token = _quiet.set(wanted)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextmanager
def show_progress(console: Console) -> Iterator[Progress]:
    """Bars on a terminal, short lines elsewhere, nothing where a user asked for quiet."""
    if _quiet.get():
        yield Silent()
        return
    if not console.is_terminal:
        lines, over = Lines(console), threading.Event()
        thread = threading.Thread(target=_beat, args=(lines, over), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield lines
        finally:
            over.set()
            thread.join()
        return
    columns = [
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}", markup=False),
    ]
    with Bars(*columns, console=console) as bars:
        yield Terminal(bars)


def _beat(lines: "Lines", over: threading.Event) -> None:
    while not over.wait(1.0):
        lines.beat()


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
    """Progress as plain lines, for log files: never silent for longer than HEARTBEAT_SECONDS while a stage goes on.

    A line for every tenth of a stage, and between them whenever something happens at least NEWS_SECONDS after the last
    line. Where nothing happens, a line says that the stage goes on.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._stages: dict[str, _Stage] = {}
        self._current = ""
        self._last_line = clock()
        self._lock = threading.RLock()

    def start(self, stage: str, total: int) -> None:
        """Print that the stage begins."""
        with self._lock:
            self._stages[stage] = _Stage(total, self._clock())
            self._current = stage
            self._print(f"{stage}: started" + (f", {total} to do" if total > 1 else ""))

    def advance(self, stage: str, units: int, message: str) -> None:
        """Print a line when another tenth of the stage is done, or there was none for a while."""
        with self._lock:
            state, now = self._stages[stage], self._clock()
            another_tenth = state.advance(units, message, now)
            if another_tenth or now - self._last_line >= NEWS_SECONDS:
                self._print(f"{stage} {state.where(now)}: {printable(message)}")

    def finish(self, stage: str, message: str) -> None:
        """Print the stage's result."""
        with self._lock:
            self._current = ""
            self._print(f"{stage}: {printable(message)}")

    def note(self, message: str) -> None:
        """Print the note."""
        with self._lock:
            self._print(f"note: {printable(message, 1000)}")

    def beat(self) -> None:
        """Print where the stage stands if nothing was printed for HEARTBEAT_SECONDS."""
        with self._lock:
            now = self._clock()
            if self._current and now - self._last_line >= HEARTBEAT_SECONDS:
                state = self._stages[self._current]
                last = f"; last: {printable(state.message)}" if state.message else ""
                spent = plain(duration(now - state.begun))
                self._print(f"{self._current} {state.where(now)}: goes on since {spent}{last}")

    def _print(self, line: str) -> None:
        self._last_line = self._clock()
        self._console.print(Text(line), soft_wrap=True)


class _Stage:
    """How far a stage is, and how long the rest will take if it goes on like that."""

    def __init__(self, total: int, now: float) -> None:
        self.begun, self.total, self.done, self.message = now, max(total, 1), 0, ""
        self._first, self._done_at_first = now, 0

    def advance(self, units: int, message: str, now: float) -> bool:
        """Note what was done; whether that completes another tenth of the stage."""
        before = self.done * 10 // self.total
        self.done += units
        self.message = message
        if now - self.begun < RESUMED_SECONDS:  # what a resumed run had done before tells nothing about its speed
            self._first, self._done_at_first = now, self.done
        return self.done * 10 // self.total > before

    def where(self, now: float) -> str:
        """`3/10, about 40 s left`."""
        done, rest = self.done - self._done_at_first, self.total - self.done
        text = f"{self.done}/{self.total}"
        if done > 0 and rest > 0:
            left = (now - self._first) / done * rest
            text += f", about {plain(duration(max(1.0, round(left))))} left"
        return text


def result_console() -> Console:
    """Where results are printed: as wide as a terminal is, and elsewhere as wide as no table of ours."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def result_table(cohorts: Iterable["Cohort"]) -> Table:
    """The cohorts of a finished run: what their model costs, how good it is, what its devices and the network did.

    It has room in 80 columns. What devices scored on images of their own is there if any did.
    """
    cohorts = list(cohorts)
    own = any(math.isfinite(cohort.own_accuracy) for cohort in cohorts)
    table = Table(box=SIMPLE_HEAD, padding=0)
    table.add_column("cohort", no_wrap=True, min_width=9)
    for heading in (
        *("devices", "MACs", "params", "peak\nmemory", "accuracy\non test", *(["on own\nimages"] if own else [])),
        *("MACs/\nround", "bytes\ndown", "bytes\nup"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for cohort in cohorts:
        figures = (
            str(cohort.devices),
            count(cohort.macs),
            count(cohort.params),
            size(cohort.peak_memory_bytes),
            percent(cohort.test_accuracy),
            *([percent(cohort.own_accuracy)] if own else []),
            count(cohort.device_macs_per_round),
            size(cohort.bytes_down),
            size(cohort.bytes_up),
        )
        table.add_row(cohort.name, *map(plain, figures))
    return table


def print_result(console: Console, run: "Run") -> None:
    """The table of a finished run, who is in which cohort, what devices scored, and what it cost on the server."""
    lines = [*_members(run)]
    if run.own:
        name, lowest = min(run.own.items(), key=lambda item: item[1].accuracy)
        images = sum(one.images for one in run.own.values())
        line = (
            f"Own images: {percent(run.own_accuracy)} as the mean over {plural(len(run.own), 'device')}, "
            f"on {plural(images, 'image')} that nobody trained on; "
            f"lowest {percent(lowest.accuracy)} on {printable(name, 64)}"
        )
        lines.append(line)
    if math.isfinite(run.server_seconds):
        took, held = duration(run.server_seconds), size(run.server_bytes)
        epochs = plural(int(run.epochs_on_reference), "epoch")
        line = (
            f"Server:     {took} and {held} for the method itself; most trained network: {epochs} on the reference set"
        )
        lines.append(line)
    console.print(result_table(run.cohorts))
    for line in lines:
        console.print(plain(line), soft_wrap=True, markup=False, highlight=False)


def _members(run: "Run") -> Iterator[str]:
    """A line for each cohort: the profiles and the names of its devices, of many the first."""
    for cohort in run.cohorts:
        names = [printable(entry.name, 30) for entry in run.budgets if entry.cohort == cohort.name]
        if names:
            more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            profiles = ", ".join(printable(profile, 30) for profile in cohort.profiles) or "devices"
            yield f"{cohort.name + ':':<11} {profiles} ({', '.join(names[:MOST_NAMES])}{more})"
