"""A tuning from beginning to end: checked first, then every trial of every method, then what is chosen."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigurationError
from common.progress import Progress
from common.wording import duration, plain, plural
from feddac.comparison.announce import estimated_seconds
from feddac.comparison.one_writer import only_writer
from feddac.tuning.check import check_own_settings
from feddac.tuning.execute import count_finished, make_trials
from feddac.tuning.mishaps import Mishap
from feddac.tuning.plan import Tuning
from feddac.tuning.study import MethodStudy, open_storage, require_optuna
from feddac.tuning.trials import Choice
from feddac.tuning.write import write_trials


def tune(
    tuning: Tuning, out: Path, trials: int, jobs: int, engine: str, progress: Progress
) -> tuple[list[Choice], list[Mishap]]:
    """Make `trials` trials of each method below `out`, `jobs` runs at a time, and choose the best of each method.

    Returns the choices, and the trials that the machine has ended, which the same call does again. Trials that are
    there already are not made again. Whatever happens, trials.jsonl has those that are over. Raises
    ConfigurationError if `out` cannot be written or holds trials of something else, CheckpointError if another process
    works there, and, before any work, what the runs of the experiment's own settings would end with.
    """
    require_optuna()
    check_own_settings(tuning)
    with only_writer(out):
        storage = open_storage(out)
        studies = [MethodStudy(method, tuning.seed, storage) for method in tuning.methods]
        _require_as_many(studies, trials)
        progress.note(_announcement(tuning, trials, jobs))
        try:
            mishaps = make_trials(studies, trials, out, jobs, engine, progress)
        finally:
            choices = [Choice.of(study.method.name, study.trials()) for study in studies]
            write_trials(choices, out)
            storage.remove_session()
        return choices, mishaps


def _require_as_many(studies: Sequence[MethodStudy], trials: int) -> None:
    """Raise ConfigurationError if a method had more trials already: the others would not have had as many."""
    most = max(count_finished(study) for study in studies)
    if most > trials:
        raise ConfigurationError(
            f"--out holds {most} trials of a method already, and every method must have as many: give --trials {most} "
            "or more, or another --out"
        )


def _announcement(tuning: Tuning, trials: int, jobs: int) -> str:
    """How many trials there will be, and about how long they take if none is pruned and none is there already."""
    cells = len(tuning.experiment.cells)
    configs = [config for method in tuning.methods for config in method.configs.values()]
    first = estimated_seconds(configs)
    another = estimated_seconds([*configs, *configs]) - first  # without the searches, which are done once
    at_a_time = min(jobs, len(tuning.methods))
    rough = float(f"{max((first + (trials - 1) * another) / at_a_time, 1.0):.1g}")
    return (
        f"{plural(trials, 'trial')} of each of {plural(len(tuning.methods), 'method')} on seed {tuning.seed}"
        + (f", each of {plural(cells, 'run')}" if cells > 1 else "")
        + (f", {at_a_time} at a time" if at_a_time > 1 else "")
        + f": at most about {plain(duration(rough))}, by the speed of this machine"
    )
