"""Runs that train nothing: they write what a run folder holds, with accuracies that follow from their settings.

So a tuning of many trials takes seconds, and what becomes of each is known. All else, `feddac tune` itself, its
processes and its files, is as ever.
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from common.budget import DeviceBudget
from common.config import Config
from feddac.comparison import processes
from server.budget_entries import BudgetEntry
from server.run_folder import RunFolder
from tests.forked import Forked

EXPERIMENT = """
seeds = [0, 1]
[settings]
model = "mlp"
devices = 4
rounds = 3
fleet = "phone"
accelerator = "cpu"
train-images = 300
warmup-epochs = 1
[methods.first]
[methods.second]
learning-rate = 0.02
[tune]
learning-rate = {low = 0.001, high = 1.0, log = true}
"""
TIDY = "tidily.txt"
"""Written by a run that was asked to end."""

SERVED, CHANCE = 3, 0.1
"""Of four devices one has no model, and guesses one of ten classes."""


def quality(config: Config, number: int) -> float:
    """The validation accuracy after a round: best at a rate of 0.1, a little lower where devices see few classes."""
    distance = abs(math.log10(config.federation.learning_rate) + 1)
    return (0.9 - 0.2 * distance - 0.1 * (config.data.partition != "iid")) * number / config.federation.rounds


def append(folder: RunFolder, event: str, **fields: object) -> None:
    """As `folder.append`, without the scalars for TensorBoard, whose import takes seconds."""
    with open(folder.metrics_path, "a") as file:
        file.write(json.dumps({"event": event, **fields}) + "\n")


def scripted(place: str, lag: int = -1, fail: int = -1, killed: int = -1, full: int = -1, seconds: float = 0.0) -> int:
    """What a run's process does, except that trial `lag` falls behind and never ends, and trial `fail` fails.

    Trial `killed` is ended as by the system that has no memory left, and `full` by a full disk. Each round takes so
    many `seconds`.
    """
    folder = RunFolder(Path(place))
    trial = int(next(part for part in folder.path.parts if part.startswith("trial-")).removeprefix("trial-"))
    config = Config.from_mapping(folder.read_config())
    if trial == fail:
        print("Error: the training diverged")
        return 1
    if trial == full:
        again = f"feddac simulate --resume {place}"
        print(f"Error: cannot write in {place}: No space left on device; once that is mended, resume with: {again}")
        return 1
    with folder:
        append(folder, "run", class_names=[str(one) for one in range(10)])
        folder.write_budgets(
            [BudgetEntry(f"device-{n}", DeviceBudget(), cohort="cohort-0" * (n < SERVED)) for n in range(SERVED + 1)]
        )
        figures: dict[str, float] = {}
        for number in range(config.federation.rounds + 1):
            good = quality(config, number)
            # The test set would choose the opposite.
            figures = {"test_accuracy": 1 - good, "validation_accuracy": 0.01 if trial == lag else good}
            append(folder, "evaluation", round=number, cohort="cohort-0", **figures)
            try:
                if trial == killed and number == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60 if trial == lag and number == 2 else seconds)
            except KeyboardInterrupt:
                (folder.path / TIDY).touch()
                return 130
        folder.write_summary({"cohorts": [{"cohort": "cohort-0", "devices": SERVED, **figures}]})
    return 0


def starter(**behaviour: float) -> Callable[[RunFolder, str, int], Forked]:
    """In place of `feddac.comparison.processes.start_run`: a scripted run."""

    def start(folder: RunFolder, engine: str, workers: int) -> Forked:
        output = folder.path / processes.OUTPUT
        work = partial(scripted, str(folder.path), **behaviour)  # type: ignore[arg-type]
        return Forked(work, Path.cwd(), os.environ, output, output)

    return start


def tune_scripted(arguments: Sequence[str], seconds: float) -> int:
    """`feddac tune` in a process of its own, whose runs are scripted."""
    from feddac.cli.main import run

    processes.start_run = starter(seconds=seconds)  # type: ignore[assignment]
    return run(["tune", *arguments])


def tune_on_small_disk(arguments: Sequence[str], most_bytes: int) -> int:
    """`feddac tune` where no file can have more than so many bytes."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    return tune_scripted(arguments, 0.0)
