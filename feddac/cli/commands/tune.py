"""`feddac tune`: settings of every method of an experiment, chosen by the same procedure on validation images."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.errors import FedDACError
from feddac.cli.failures import say
from feddac.cli.options import flag_words
from feddac.endings import FAILED, INTERRUPTED, ONCE_MENDED, storage_problem

EXAMPLES = """
Examples:
  feddac tune methods --out runs/tuned
  feddac tune experiment.toml --trials 3 --out runs/tuned
  feddac tune experiment.toml --trials 2 --rounds 2 --jobs 1 --out runs/trial
  feddac compare runs/tuned/tuned.toml --out runs/compared

The experiment file may say what is tried, and in which range, for all methods
and for single ones; without that the learning rate is tried, 0.003 to 0.3:
  [tune]
  learning-rate = {low = 0.003, high = 0.3, log = true}
  momentum = [0.0, 0.5, 0.9]
  [tune.methods.fedprox]
  proximal-coefficient = {low = 0.001, high = 1.0, log = true}
"""


def tune(
    settings: dict[str, Any],
    experiment: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT",
            help="Experiment file as for feddac compare, or one that FedDAC ships, such as methods and peers-quick.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where trials and result are kept.", show_default=False)],
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="Trials of every method.")] = 10,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Of data, runs and trials; none of the experiment's (default: one above its largest).",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", min=0, help="Methods at a time, one trial of each; 0 is one per CPU.")
    ] = 0,
    engine: Annotated[
        str, typer.Option(metavar="ray|inline|batched", help="Where the devices of a run live, as for feddac simulate.")
    ] = "inline",
) -> None:
    """Tune the methods of an experiment on validation images: as many trials for each, and never the test set.

    A trial is a run of the method on every setting of the grid; the first has the experiment's own settings. FOLDER
    gets tuned.toml, which feddac compare takes, and trials.jsonl. The same command, given again, does what is missing.
    """
    from feddac.cli.display import result_console, show_progress
    from feddac.comparison.plan import find_experiment
    from feddac.tuning.plan import read_tuning
    from feddac.tuning.study import require_optuna
    from feddac.tuning.tables import choices_table
    from feddac.tuning.tune import tune as run_tuning
    from feddac.tuning.write import TRIALS, write_tuned
    from simulation.engines import check_engine

    check_engine(engine)
    require_optuna()
    tuning = read_tuning(find_experiment(experiment), settings, seed)
    at_a_time = jobs or os.cpu_count() or 1
    try:
        with show_progress(Console(stderr=True)) as progress:
            choices, mishaps = run_tuning(tuning, out, trials, at_a_time, engine, progress)
    except KeyboardInterrupt:
        say("Interrupted; the same command goes on where this one stopped")
        raise typer.Exit(INTERRUPTED) from None
    except FedDACError:
        raise
    except Exception as error:
        if problem := storage_problem(error):
            say(f"Error: cannot write in {out}: {problem}{ONCE_MENDED}the same command goes on")
            raise typer.Exit(FAILED) from None
        raise
    console = result_console()
    console.print(choices_table(choices))
    open_ = [one.method for one in mishaps]
    failed = [one for one in choices if one.best is None and one.method not in open_]
    paths = [out / TRIALS]
    if not failed and not mishaps:
        command = _command(experiment, out, trials, tuning.seed, engine, settings)
        paths.append(write_tuned(tuning, choices, command, out))
    for path in paths:
        console.print(str(path), soft_wrap=True, markup=False, highlight=False)
    for one in failed:
        say(f"Failed: {one.method}: no trial came to its end, so there is no tuned.toml; first: {one.why_none}")
    for each in mishaps:
        say(f"Not done: {each.method}, trial {each.trial}: {each.reason}; the same command does it again")
    if failed or mishaps:
        raise typer.Exit(FAILED)


def _command(experiment: str, out: Path, trials: int, seed: int, engine: str, settings: Mapping[str, Any]) -> str:
    """The command line that makes these choices."""
    words = ["feddac", "tune", experiment, "--trials", str(trials), "--seed", str(seed), "--out", str(out)]
    words += [] if engine == "inline" else ["--engine", engine]
    for key, value in settings.items():
        words += flag_words(key, value)
    return shlex.join(words)
