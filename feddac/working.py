"""Simulate, search and train as functions. Settings are keywords: `--local-epochs 3` becomes `local_epochs=3`."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# First, because it sets what Flower and Ray read when they are imported.
import simulation  # noqa: F401
from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import BudgetError, ConfigurationError
from common.groups import FEDERATED, ModelSettings
from common.presets import without_preset
from common.progress import Progress, Silent
from common.settings import Scalar, key_of, keys_of, name_of
from dac.files import Member, load_member
from dac.model_file import read_model
from feddac.runs import Run, read_run
from feddac.simulating import Engine, carry_out
from feddac.standalone import searching, training
from feddac.standalone.budgets import FLAGS
from feddac.standalone.material import Material
from feddac.standalone.settings import SEARCH, TRAIN, checker
from feddac.start import prepare
from server.run_folder import RunFolder


def simulate(
    *,
    out: str | Path = "",
    engine: str = "ray",
    workers: int = 0,
    ray_address: str = "",
    together: int = 0,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Scalar,
) -> Run:
    """Run a whole federation and return the finished run.

    `engine` is ray (devices in `workers` processes, 0 for one per CPU, of this machine or of the Ray cluster at
    `ray_address`, by default the environment's RAY_ADDRESS), inline (all in this process) or batched (in this process,
    up to `together` devices of a cohort at once, 0 for as many as suit the accelerator). `config` is a TOML file of
    settings, over which `settings` win. `resume` continues the run of a folder with its own settings. `progress` is
    told what happens; without one nothing is printed. Raises FedDACError, in one sentence, for settings, budgets and
    data that cannot work.
    """
    where = Engine.checked(engine, workers, ray_address, together)
    with _keywords_that_work():
        whole, folder = prepare(_settings(settings, out), _path(config), _path(resume), progress)
    with folder:
        carry_out(whole, folder, where, progress or Silent(), resume is not None)
    return read_run(folder.path)


def search(
    budgets: DeviceBudget | Iterable[DeviceBudget] | Mapping[str, DeviceBudget] | None = None,
    *,
    out: str | Path = "",
    resume: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Scalar,
) -> Run:
    """Search one nested family of architectures, one for each of `budgets`, and return the finished run.

    Budgets without names are called budget-1, budget-2, ... Everything else is as for `simulate`.
    """
    if (budgets is None) == (resume is None):
        raise ConfigurationError("give the budgets to search for, or the folder of a search to resume")
    given = _alone(settings, out)
    if resume is not None:
        _require_none(resume, out=out)
        given = {**RunFolder.open(resume).read_config(), **given}
    given = without_preset(given, keys_of(*SEARCH))
    checker(SEARCH)(given)
    asked = None if budgets is None else _named(budgets)
    with _keywords_that_work(omit=[f"max-{flag}" for flag in FLAGS]):
        job = searching.prepare_search(given, asked, progress or Silent(), _path(resume))
    job.run(progress or Silent())
    return read_run(job.folder.path)


def train(
    architecture: Architecture | str | Path | None = None,
    *,
    teacher: str | Path | None = None,
    out: str | Path = "",
    resume: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Scalar,
) -> Run:
    """Train one architecture without federation and return the finished run.

    `architecture` is one of a run (then the first weights are random), a file of one or of a model (then training
    goes on from its weights), or None for the whole base network. `teacher` is the file of a network whose answers it
    learns too. Everything else is as for `simulate`.
    """
    given = _alone(settings, out)
    network = str(given.get("model", ""))
    if architecture is not None:
        training.require_no_network(given, "the architecture", name_of)
    if resume is not None:
        _require_none(resume, architecture=architecture, teacher=teacher, out=out)
        given = {**RunFolder.open(resume).read_config(), **given}
    checker(TRAIN)(given)

    def choose(model: ModelSettings, material: Material, seed: int) -> Member:
        if isinstance(architecture, str | Path):
            member = _member(Path(architecture))
            training.require_of(network, member.architecture, str(architecture), "model")
            return member
        if architecture is not None:
            training.require_of(network, architecture, "the architecture", "model")
        return training.from_scratch(architecture, model, material.data, seed)

    job = training.prepare_training(given, choose, _path(teacher), progress or Silent(), _path(resume))
    job.run(progress or Silent())
    return read_run(job.folder.path)


@contextmanager
def _keywords_that_work(omit: Collection[str] = ()) -> Iterator[None]:
    """Add the remedy of a BudgetError to its message as it is written in Python; the keys in `omit` are no keywords."""
    try:
        yield
    except BudgetError as error:
        changes = {name_of(key): value for key, value in error.remedy.items() if key not in omit}
        works = ", ".join(f"{name}={value!r}" for name, value in changes.items())
        raise BudgetError(f"{error}; this works: {works}" if works else str(error), error.remedy) from None


def _member(file: Path) -> Member:
    if file.suffix == ".json":
        return load_member(file)
    model = read_model(file)
    return Member(model.architecture, DeviceBudget(), model.state, 0.0)


def _named(
    budgets: DeviceBudget | Iterable[DeviceBudget] | Mapping[str, DeviceBudget],
) -> dict[str, DeviceBudget]:
    if isinstance(budgets, Mapping):
        return dict(budgets)
    several = [budgets] if isinstance(budgets, DeviceBudget) else list(budgets)
    return {f"budget-{number}": one for number, one in enumerate(several, start=1)}


def _settings(settings: Mapping[str, Scalar], out: str | Path) -> dict[str, Any]:
    """Kebab-case keys, and `out` only where it was given, so that a file may say it."""
    return {**{key_of(name): value for name, value in settings.items()}, **({"out": str(out)} if str(out) else {})}


def _alone(settings: Mapping[str, Scalar], out: str | Path) -> dict[str, Any]:
    """Settings of what is done without federation; raises ConfigurationError for one that means nothing there."""
    for name in FEDERATED:
        if name in settings:
            raise ConfigurationError(f"{name} has no effect without a federation: leave it out")
    return _settings(settings, out)


def _require_none(resume: str | Path, **others: object) -> None:
    """Raise ConfigurationError for what only a new folder can be given."""
    for name, value in others.items():
        if value is not None and value != "":
            raise ConfigurationError(f"{resume} is continued with what it was begun with: leave out {name}")


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
