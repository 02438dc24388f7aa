"""Compare methods over seeds, as a function."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigurationError
from common.progress import Progress, Silent
from common.settings import Scalar, key_of
from feddac.comparison.announce import announcement
from feddac.comparison.collect import CellResult, collect
from feddac.comparison.execute import execute
from feddac.comparison.folders import prepare_folders
from feddac.comparison.one_writer import only_writer, wait_until_free
from feddac.comparison.plan import Experiment, find_experiment, read_experiment
from feddac.comparison.remaining import unfinished
from feddac.comparison.write import write_comparison
from server.damage import values_as_written
from server.run_folder import RunFolder
from simulation.engines import check_engine


@dataclass(frozen=True)
class Comparison:
    """A comparison that was done: results per cell and method, the files written, and why runs failed, if any did."""

    folder: Path
    cells: tuple[CellResult, ...]
    files: tuple[Path, ...]
    failures: Mapping[str, str]


def compare(
    experiment: str | Path,
    *,
    out: str | Path,
    seeds: Sequence[int] | None = None,
    jobs: int = 1,
    engine: str = "inline",
    progress: Progress | None = None,
    **settings: Scalar,
) -> Comparison:
    """Do every run of an experiment file, or of one that FedDAC ships, `jobs` at a time, and compare them.

    With 0 `jobs` there is one per CPU. Runs that are finished in `out` already are left alone. `seeds` and `settings`
    replace those of the file. Raises ConfigurationError for a file that is not an experiment and for fewer than 0
    `jobs`, CheckpointError if another process compares or tunes in `out`; a run that fails does not stop the others.
    """
    if jobs < 0:
        raise ConfigurationError(f"jobs must be at least 0, not {jobs}")
    jobs = jobs or os.cpu_count() or 1
    check_engine(engine)
    given = {key_of(name): value for name, value in settings.items()}
    plan = read_experiment(find_experiment(str(experiment)), given, None if seeds is None else list(seeds))
    return carry_out(plan, Path(out), jobs, engine, progress)


def carry_out(plan: Experiment, out: Path, jobs: int, engine: str, progress: Progress | None = None) -> Comparison:
    """Do the runs that are missing below `out`, `jobs` at a time, and write what all of them came to.

    Raises ConfigurationError if `out` cannot be written or holds runs with other settings, CheckpointError if another
    process works there or a finished run is damaged.
    """
    with only_writer(out):
        if progress is not None:
            progress.note(announcement(plan, out, jobs))
        folders = [RunFolder(out / run.folder) for run in unfinished(plan.runs, out)]
        wait_until_free(folder for folder in folders if folder.config_path.exists())
        prepare_folders(plan.runs, out)
        failures = execute(plan.runs, out, jobs, engine, progress or Silent())
        with values_as_written(out):
            cells = collect(plan, out)
        files = write_comparison(plan, cells, failures, out)
    return Comparison(out, tuple(cells), tuple(files), {one.run.title: one.reason for one in failures})
