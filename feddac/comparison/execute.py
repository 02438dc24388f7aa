"""Do the runs of a comparison: each one a `feddac simulate` process of its own, several at a time.

A finished run is left alone and one that was cut short goes on where it stopped, so that the same command, given again,
completes a comparison. A run that fails does not stop the others.
"""

import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.progress import Progress
from common.wording import number_of, percent, plain
from feddac.comparison import processes
from feddac.comparison.one_writer import who_writes
from feddac.comparison.plan import PlannedRun
from feddac.comparison.sharing import Searches
from server.run_folder import RunFolder
from simulation.engines import workers_of_each

_POLL_SECONDS = 0.1
_STAGE = "runs"


@dataclass(frozen=True)
class Failure:
    """A run that did not finish, and why in one line."""

    run: PlannedRun
    reason: str


@dataclass
class _Task:
    run: PlannedRun
    folder: RunFolder


def execute(runs: Sequence[PlannedRun], out: Path, jobs: int, engine: str, progress: Progress) -> list[Failure]:
    """Finish all runs below `out`, whose folders are prepared, `jobs` at a time; returns those that failed.

    Runs with the same search wait for the first of them to have done it, and take it over. One in which another process
    writes is left alone. Interrupted, it ends its processes first.
    """
    workers = workers_of_each(engine, jobs)
    tasks = [_Task(run, RunFolder(out / run.folder)) for run in runs]
    searches = Searches()
    for one in tasks:
        searches.add(one.run.config, one.folder)
    pending = [task for task in tasks if not task.folder.summary_path.exists()]
    progress.start(_STAGE, len(tasks))
    if len(pending) < len(tasks):
        progress.advance(_STAGE, len(tasks) - len(pending), f"{len(tasks) - len(pending)} were there already")
    active: dict[subprocess.Popen[bytes], _Task] = {}
    failures: list[Failure] = []
    with processes.ended_at_exit(active):
        while pending or active:
            while len(active) < jobs and (task := _next(pending, searches, [one.folder for one in active.values()])):
                pending.remove(task)
                if reason := who_writes(task.folder):
                    failures.append(Failure(task.run, reason))
                    progress.advance(_STAGE, 1, f"{task.run.title}: failed")
                    continue
                searches.take_over(task.folder)
                active[processes.start_run(task.folder, engine, workers)] = task
            time.sleep(_POLL_SECONDS)
            for process in [one for one in active if one.poll() is not None]:
                task = active.pop(process)
                if process.returncode == 0:
                    message = f"{task.run.title}: {_accuracy(task.folder)}"
                else:
                    output = task.folder.path / processes.OUTPUT
                    failures.append(Failure(task.run, processes.reason_of(output, process.returncode)))
                    message = f"{task.run.title}: failed"
                progress.advance(_STAGE, 1, message)
    progress.finish(_STAGE, f"{len(tasks) - len(failures)} of {len(tasks)} finished")
    return failures


def _next(pending: Iterable[_Task], searches: Searches, active: Sequence[RunFolder]) -> _Task | None:
    """The first run whose search nobody is doing at the moment."""
    return next((task for task in pending if not searches.is_awaited(task.folder, active)), None)


def _accuracy(folder: RunFolder) -> str:
    accuracy = number_of(folder.read_summary().get("test_accuracy"))
    return f"accuracy {plain(percent(accuracy))}"
