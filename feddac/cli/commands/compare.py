"""`feddac compare`: methods x seeds from one experiment file, with tables, plots and significance."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.errors import ConfigurationError
from feddac.cli.failures import say
from feddac.endings import FAILED, INTERRUPTED

EXAMPLES = """
Examples:
  feddac compare methods --out runs/methods
  feddac compare methods --out runs/quick --seeds 0,1 --rounds 5 --train-images 6000
  feddac compare experiment.toml --out runs/experiment --jobs 4
  feddac compare experiment.toml --out runs/experiment --show

An experiment file names seeds, settings of every run, and methods by the
settings in which they differ:
  seeds = [0, 1, 2]
  [settings]
  data = "digits"
  [methods.cohort]
  [methods.overlap]
  aggregation = "overlap"
"""


def compare(
    settings: dict[str, Any],
    experiment: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Experiment file, or one that FedDAC ships: methods, peers, peers-quick, skewed, figure4, "
            "figure4-growing, figure5, autoflip-published.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where runs and results are kept.", show_default=False)
    ] = None,
    jobs: Annotated[int, typer.Option(metavar="N", min=0, help="Runs at a time; 0 is one per CPU.")] = 0,
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Instead of the file's seeds.", show_default=False)] = "",
    engine: Annotated[
        str, typer.Option(metavar="ray|inline|batched", help="Where the devices of a run live, as for feddac simulate.")
    ] = "inline",
    show: Annotated[bool, typer.Option("--show", help="Only say what is left to do and how long it takes.")] = False,
) -> None:
    """Compare methods over seeds: accuracy, cost, and whether differences are more than chance.

    Every run is a run folder FOLDER/CELL/METHOD/seed-N. The same command, given again, does what is missing. Settings
    on the command line replace those that the file gives all runs.
    """
    from feddac.cli.display import result_console, show_progress
    from feddac.comparing import carry_out
    from feddac.comparison.announce import announcement
    from feddac.comparison.folders import check_folders
    from feddac.comparison.plan import find_experiment, read_experiment
    from feddac.comparison.remaining import remaining, remaining_table
    from feddac.comparison.tables import cell_tables, rich_table
    from simulation.engines import check_engine

    check_engine(engine)
    plan = read_experiment(find_experiment(experiment), settings, _seeds(seeds))
    at_a_time = jobs or os.cpu_count() or 1
    console = result_console()
    if show:
        if out is not None:
            check_folders(plan.runs, out)
        console.print(announcement(plan, out, at_a_time), soft_wrap=True, markup=False, highlight=False)
        console.print(remaining_table(remaining(plan, out)))
        return
    if out is None:
        raise ConfigurationError("--out FOLDER is missing: it says where runs and results are kept")
    try:
        with show_progress(Console(stderr=True)) as progress:
            done = carry_out(plan, out, at_a_time, engine, progress)
    except KeyboardInterrupt:
        say("Interrupted; the same command goes on where this one stopped")
        raise typer.Exit(INTERRUPTED) from None
    for table in cell_tables(done.cells):
        console.print(rich_table(table, console.width))
    for path in done.files:
        console.print(str(path), soft_wrap=True, markup=False, highlight=False)
    for run, reason in done.failures.items():
        say(f"Failed: {run}: {reason}")
    if done.failures:
        raise typer.Exit(FAILED)


def _seeds(text: str) -> list[int] | None:
    if not text:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--seeds must be whole numbers with commas between them, not {text!r}") from None
