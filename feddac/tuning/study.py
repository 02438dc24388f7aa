"""The trials of a method, an Optuna study in a file so that none is lost: what to try next, and what is hopeless.

TPE draws settings and a median pruner ends what falls behind. Every trial has a sampler of its own, seeded by the
tuning's seed, the method and the trial's number, and trials of a method follow one another: what is tried depends on
nothing but the seed and what the earlier trials came to, not on when a command was interrupted or on what ran beside.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.errors import CheckpointError, ConfigurationError
from common.seeds import derive_seed
from common.settings import Scalar
from feddac.endings import storage_problem
from feddac.tuning.plan import TunedMethod
from feddac.tuning.ranges import Range
from feddac.tuning.trials import State, Trial

if TYPE_CHECKING:
    import optuna

FILE = "study.db"
"""An SQLite file, which Optuna's own tools read as well."""

RANDOM_TRIALS = 4
"""So many trials of a method are drawn at random, the experiment's own among them, before TPE learns from them."""

SPARED_TRIALS = 3
"""No trial is pruned before so many of its method are complete."""

SPARED_ROUNDS = 3
"""Nor in the first third of the rounds: one part in so many."""

_PLAN, _REASON = "plan", "reason"


def require_optuna() -> Any:
    """Optuna, quiet; raises ConfigurationError that names the extra to install where it is missing."""
    try:
        module = import_module("optuna")
    except ImportError:
        raise ConfigurationError("tune needs the package optuna; install it with: pip install 'feddac[tune]'") from None
    module.logging.set_verbosity(module.logging.WARNING)
    return module


def open_storage(folder: Path) -> "optuna.storages.BaseStorage":
    """The file of all studies in `folder`, made where there is none; raises CheckpointError if it is damaged.

    Raises ConfigurationError for a folder whose name the address of a database cannot hold, and what the database says
    where nothing can be written.
    """
    library = require_optuna()
    path = folder / FILE
    if "?" in str(path.resolve()):
        raise ConfigurationError(f"trials cannot be kept in {folder}: choose an --out without '?'")
    address = f"sqlite:///{path.resolve()}".replace("{", "{{").replace("}", "}}")  # Optuna fills in what is in braces
    try:
        storage: optuna.storages.BaseStorage = library.storages.RDBStorage(address)
    except Exception as error:  # of Optuna, SQLAlchemy, Alembic or SQLite, whoever finds it first
        if storage_problem(error):
            raise
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is damaged ({reason}): choose another --out, or delete that folder") from None
    return storage


@dataclass(frozen=True)
class OpenTrial:
    """A trial that is going on, and the accuracies after steps that are `known` of it."""

    number: int
    settings: dict[str, Scalar]
    trial: "optuna.Trial"
    known: dict[int, float]


class MethodStudy:
    """The trials of one method; at most one of them is open."""

    def __init__(self, method: TunedMethod, seed: int, storage: "optuna.storages.BaseStorage") -> None:
        """Open the study, or begin it; also anew where every trial failed, for what was missing may be there now.

        Raises ConfigurationError if its trials were made of other settings or ranges.
        """
        self.method = method
        self._seed = seed
        self._optuna = require_optuna()
        self._study = self._open(storage)
        frozen = self._study.get_trials(deepcopy=False)
        if frozen and all(one.state == self._optuna.trial.TrialState.FAIL for one in frozen):
            self._optuna.delete_study(study_name=method.name, storage=storage)
            self._study = self._open(storage)

    def _open(self, storage: "optuna.storages.BaseStorage") -> "optuna.Study":
        rounds = sum(config.federation.rounds for config in self.method.configs.values())
        study: optuna.Study = self._optuna.create_study(
            storage=storage,
            study_name=self.method.name,
            direction="maximize",
            load_if_exists=True,
            pruner=self._optuna.pruners.MedianPruner(
                n_startup_trials=SPARED_TRIALS, n_warmup_steps=math.ceil(rounds / SPARED_ROUNDS)
            ),
        )
        wanted, before = self.method.identity(), study.user_attrs.get(_PLAN)
        if before is None:
            study.set_user_attr(_PLAN, wanted)
        elif before != wanted:
            key = next(one for one in (*wanted, *before) if wanted.get(one) != before.get(one))
            raise ConfigurationError(
                f"the trials of {self.method.name} in --out were made with {key} = {before.get(key)!r}, not "
                f"{wanted.get(key)!r}: choose another --out, or delete that folder"
            )
        return study

    def next(self) -> OpenTrial:
        """The trial that is open, or was when its process ended, and else a new one."""
        states = self._optuna.trial.TrialState
        begun = [one for one in self._study.get_trials(deepcopy=False) if one.state != states.WAITING]
        if begun and begun[-1].state == states.RUNNING:
            last = begun[-1]
            self._seed_sampler(last.number)
            trial = self._optuna.Trial(self._study, last._trial_id)
            return self._opened(trial, last.number, dict(last.intermediate_values))
        self._seed_sampler(len(begun))
        if not begun:
            # what lies outside a range the sampler cannot learn from, but it is tried and can be chosen
            own = self.method.own()
            inside = {key: own[key] for key, one in self.method.ranges.items() if one.holds(own[key])}
            self._study.enqueue_trial(inside, skip_if_exists=True)
        return self._opened(self._study.ask(), len(begun), {})

    def _seed_sampler(self, number: int) -> None:
        seed = derive_seed(self._seed, "tune", self.method.name, number) % 2**32
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)

    def _opened(self, trial: "optuna.Trial", number: int, known: dict[int, float]) -> OpenTrial:
        """The trial with its settings, those drawn before it was interrupted among them."""
        own = self.method.own()
        drawn = {
            key: _draw(trial, key, one) for key, one in self.method.ranges.items() if number or one.holds(own[key])
        }
        return OpenTrial(number, self._settings(number, drawn), trial, known)

    def _settings(self, number: int, drawn: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What a trial changes; numbers have four digits, so that a person can write them."""
        if number == 0:
            return self.method.effective(self.method.own())
        return self.method.effective({key: self.method.ranges[key].rounded(value) for key, value in drawn.items()})

    def is_hopeless(self, one: OpenTrial, step: int, accuracy: float) -> bool:
        """Note what a trial has reached after a step, and whether that is worse than the median of those before it.

        To be told of all steps in order; those it knew before it was interrupted are not judged again, but the last.
        """
        last = max(one.known, default=0)
        if step < last:
            return False
        if step > last:
            one.trial.report(accuracy, step)
            one.known[step] = accuracy
        return one.trial.should_prune()

    def complete(self, one: OpenTrial, accuracy: float) -> None:
        """The trial came to its end with this score."""
        self._study.tell(one.trial, accuracy)

    def prune(self, one: OpenTrial) -> None:
        """The trial was given up."""
        self._study.tell(one.trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, one: OpenTrial, reason: str) -> None:
        """The trial could not come to its end."""
        one.trial.set_user_attr(_REASON, reason)
        self._study.tell(one.trial, state=self._optuna.trial.TrialState.FAIL)

    def trials(self) -> list[Trial]:
        """All trials that are known, in the order of their numbers."""
        found = []
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state == self._optuna.trial.TrialState.WAITING:
                continue
            state = _STATES.get(frozen.state.name, "running")
            found.append(
                Trial(
                    self.method.name,
                    frozen.number,
                    state,
                    self._settings(frozen.number, frozen.params),
                    float(frozen.value) if state == "complete" and frozen.value is not None else math.nan,
                    dict(frozen.intermediate_values),
                    str(frozen.user_attrs.get(_REASON, "")),
                )
            )
        return found


_STATES: dict[str, State] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def _draw(trial: "optuna.Trial", key: str, one: Range) -> Scalar:
    """A value of the range, by the study's sampler unless it is given or was drawn before."""
    if one.choices:
        return cast(Scalar, trial.suggest_categorical(key, one.choices))
    if isinstance(one.low, int) and isinstance(one.high, int):
        return trial.suggest_int(key, one.low, one.high, log=one.log)
    return trial.suggest_float(key, one.low, one.high, log=one.log)
