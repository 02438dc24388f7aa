"""Make the trials: those of a method one after another, methods beside each other, each run a process of its own.

A run that is there already is not made again, one that was cut short goes on where it stopped, and a search that
several trials share is done once. A trial that falls behind is ended, and one that fails is a trial all the same. One
that the machine has ended stays open for another command, and with it the later ones of its method.
"""

import math
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigurationError
from common.progress import Progress
from common.wording import percent, plain
from feddac.comparison import processes
from feddac.comparison.folders import prepare_folders
from feddac.comparison.one_writer import RELEASE_SECONDS, who_writes
from feddac.comparison.sharing import Searches
from feddac.tuning.mishaps import Mishap, mishap_of
from feddac.tuning.plan import TrialRun
from feddac.tuning.score import after_rounds, at_the_end
from feddac.tuning.study import MethodStudy, OpenTrial
from server.run_folder import RunFolder
from simulation.engines import workers_of_each

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 0.5
_STAGE = "trials"


@dataclass
class _Attempt:
    """An open trial: its runs, how many of them are over with which scores, and the process of the one that is not."""

    study: MethodStudy
    trial: OpenTrial
    runs: list[TrialRun]
    out: Path
    scores: list[float] = field(default_factory=list)
    process: "subprocess.Popen[bytes] | None" = None
    seen_bytes: int = -1
    next_look: float = 0.0
    opened: float = field(default_factory=time.monotonic)
    ended_by: float = math.inf
    is_over: bool = False
    mishap: str = ""
    """Why it stays open, if it does."""
    message: str = ""
    """What it has come to last, in words."""

    @property
    def run(self) -> TrialRun:
        return self.runs[len(self.scores)]

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.out / self.run.folder)

    @property
    def title(self) -> str:
        return f"{self.study.method.name}, trial {self.trial.number}"


def make_trials(
    studies: Sequence[MethodStudy], trials: int, out: Path, jobs: int, engine: str, progress: Progress
) -> list[Mishap]:
    """Make `trials` trials of each study below `out`, `jobs` runs at a time; interrupted, it ends its processes first.

    Returns the trials that the machine has ended, at which their studies stop. Raises ConfigurationError for folders
    that hold runs with other settings.
    """
    workers = workers_of_each(engine, min(jobs, len(studies)))
    waiting: list[_Attempt] = []
    active: list[_Attempt] = []
    processes_of: dict[subprocess.Popen[bytes], _Attempt] = {}
    mishaps: list[Mishap] = []
    searches = _searches_of(studies, out)
    left = {study.method.name: trials - count_finished(study) for study in studies}
    progress.start(_STAGE, trials * len(studies))
    if (before := trials * len(studies) - sum(left.values())) > 0:
        progress.advance(_STAGE, before, f"{before} were there already")

    def open_next(study: MethodStudy) -> None:
        while left[study.method.name] > 0:
            left[study.method.name] -= 1
            attempt = _open(study, out)
            for run in attempt.runs:
                searches.add(run.config, RunFolder(out / run.folder))
            if not attempt.is_over:
                waiting.append(attempt)
                return
            progress.advance(_STAGE, 1, attempt.message)

    with processes.ended_at_exit(processes_of):
        for study in studies:
            open_next(study)
        while waiting or active:
            waiting.sort(key=lambda one: one.trial.number)  # no method runs ahead of the others
            while len(active) < jobs:
                folders = [one.folder for one in active]
                ready = next(
                    (one for one in waiting if _is_free(one) and not searches.is_awaited(one.folder, folders)), None
                )
                if ready is None:
                    break
                waiting.remove(ready)
                active.append(ready)
                if _may_begin(ready):
                    searches.take_over(ready.folder)
                    ready.process = processes.start_run(ready.folder, engine, workers)
                    processes_of[ready.process] = ready
            time.sleep(_POLL_SECONDS)
            for one in list(active):
                before_look = one.message
                _look(one)
                if one.message != before_look and not one.is_over:
                    progress.advance(_STAGE, 0, one.message)
                if one.process is None:
                    active.remove(one)
                    if one.mishap:
                        mishaps.append(Mishap(one.study.method.name, one.trial.number, one.mishap))
                    elif one.is_over:
                        progress.advance(_STAGE, 1, one.message)
                        open_next(one.study)
                    else:
                        waiting.append(one)
            for process in [process for process, one in processes_of.items() if one.process is not process]:
                del processes_of[process]
    done = sum(map(count_finished, studies))
    progress.finish(_STAGE, f"{done} trials, {trials} of each method" if not mishaps else f"{done} trials")
    return mishaps


def count_finished(study: MethodStudy) -> int:
    """How many trials of the study are over."""
    return sum(one.state != "running" for one in study.trials())


def _searches_of(studies: Sequence[MethodStudy], out: Path) -> Searches:
    """The searches of the trials that are over; an open one is opened again."""
    searches = Searches()
    for study in studies:
        for trial in (one for one in study.trials() if one.state != "running"):
            with suppress(ConfigurationError):  # its settings excluded each other, so there is no run
                for run in study.method.runs(trial.number, trial.settings):
                    searches.add(run.config, RunFolder(out / run.folder))
    return searches


def _open(study: MethodStudy, out: Path) -> _Attempt:
    """The next trial of the study with its folders; it is over at once if its settings exclude each other."""
    trial = study.next()
    try:
        runs = study.method.runs(trial.number, trial.settings)
    except ConfigurationError as error:
        attempt = _Attempt(study, trial, [], out)
        _fail(attempt, str(error))
        return attempt
    prepare_folders(runs, out)
    return _Attempt(study, trial, runs, out)


def _is_free(one: _Attempt) -> bool:
    """Whether no process writes in the run's folder, or one that will not end."""
    return time.monotonic() > one.opened + RELEASE_SECONDS or not who_writes(one.folder)


def _may_begin(one: _Attempt) -> bool:
    """Whether the attempt's run is to have a process: not if it is finished, or if another one writes in its folder."""
    one.seen_bytes = -1
    return not one.folder.summary_path.exists() and not _is_stopped(one, who_writes(one.folder))


def _look(one: _Attempt) -> None:
    """See what the run has come to; afterwards the attempt has no process if its run, or all of it, is over."""
    if one.mishap:
        return
    process, now = one.process, time.monotonic()
    code = 0 if process is None else process.poll()
    if one.is_over:  # it was pruned, and its process is ending
        if process is not None and code is None and now > one.ended_by:
            processes.send(process, processes.KILL)
        if code is not None:
            one.process = None
        return
    if code is None and now < one.next_look:
        return
    one.next_look = now + _LOOK_SECONDS
    if _is_hopeless(one):
        one.study.prune(one.trial)
        one.is_over, one.message = True, f"{one.title}: pruned"
        if process is not None and code is None:
            processes.send(process, signal.SIGINT)
            one.ended_by = now + processes.GRACE_SECONDS
        else:
            one.process = None
    elif code is not None:
        one.process = None
        _end_of_run(one, code)


def _is_hopeless(one: _Attempt) -> bool:
    """Whether the accuracies after the rounds that are new say so; the last round of all is left to the end."""
    size = one.folder.metrics_path.stat().st_size if one.folder.metrics_path.exists() else 0
    if size == one.seen_bytes:
        return False
    one.seen_bytes = size
    rounds = [run.config.federation.rounds for run in one.runs]
    before = sum(rounds[: len(one.scores)])
    for number, accuracy in after_rounds(one.folder, one.run.config.fleet.devices).items():
        step = before + number
        mean = (sum(one.scores) + accuracy) / (len(one.scores) + 1)
        shown = plain(percent(accuracy))
        one.message = f"{one.title}: {shown} after round {number} of {one.run.config.federation.rounds}"
        if step < sum(rounds) and one.study.is_hopeless(one.trial, step, mean):
            return True
    return False


def _end_of_run(one: _Attempt, code: int) -> None:
    """The run is over: go on to the next cell, or tell the study what became of the trial."""
    if code and _is_stopped(one, mishap_of(one.folder.path / processes.OUTPUT, code)):
        return
    if code:
        _fail(one, processes.reason_of(one.folder.path / processes.OUTPUT, code))
        return
    score = at_the_end(one.folder, one.run.config.fleet.devices)
    if math.isnan(score):
        _fail(one, "the run has no accuracy on validation images")
        return
    one.scores.append(score)
    if len(one.scores) == len(one.runs):
        accuracy = sum(one.scores) / len(one.scores)
        one.study.complete(one.trial, accuracy)
        shown = plain(percent(accuracy))
        one.is_over, one.message = True, f"{one.title}: validation accuracy {shown}"


def _is_stopped(one: _Attempt, mishap: str) -> bool:
    """Whether there is a `mishap`, because of which the trial stays open."""
    one.mishap = mishap
    if mishap:
        one.message = f"{one.title}: not done ({mishap})"
    return bool(mishap)


def _fail(one: _Attempt, reason: str) -> None:
    one.study.fail(one.trial, reason)
    one.is_over, one.message = True, f"{one.title}: failed ({reason})"
