"""What of a comparison is done, begun and left, without doing any of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from feddac.comparison.plan import Experiment, PlannedRun
from feddac.comparison.tables import title_of
from server.run_folder import RunFolder


@dataclass(frozen=True)
class Remaining:
    """How many runs of one setting are finished, were begun (they go on where they stopped), and were not begun."""

    title: str
    done: int
    begun: int
    left: int


def unfinished(runs: Iterable[PlannedRun], out: Path | None) -> list[PlannedRun]:
    """Those that are not finished below `out`; all where there is no folder yet."""
    return [run for run in runs if out is None or not RunFolder(out / run.folder).summary_path.exists()]


def remaining(plan: Experiment, out: Path | None) -> list[Remaining]:
    """Of each setting, in the order of the experiment; reads names of files alone."""
    found = []
    for cell in plan.cells:
        runs = [run for run in plan.runs if run.cell == cell.name]
        pending = unfinished(runs, out)
        begun = sum(out is not None and _begun(RunFolder(out / run.folder)) for run in pending)
        found.append(Remaining(title_of(cell), len(runs) - len(pending), begun, len(pending) - begun))
    return found


def remaining_table(settings: Iterable[Remaining]) -> Table:
    """A row for each setting, for a terminal."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("setting", "done", "begun", "left"):
        table.add_column(heading, justify="left" if heading == "setting" else "right")
    for one in settings:
        table.add_row(one.title, str(one.done), str(one.begun), str(one.left))
    return table


def _begun(folder: RunFolder) -> bool:
    return any(folder.checkpoint_folder.glob("*"))
