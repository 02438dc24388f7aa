"""The final training of what a search found, in processes beside it where there are threads to spare.

A found network's training depends on nothing that the search does later. So half of the threads that torch has are
given to such trainings, one process with one thread for each, while the search goes on with the others; with a single
thread, on a GPU, or with a network of a script or notebook, which no other process could import, the search waits for
each of them. The result is the same either way.
"""

import os
import signal
from collections.abc import Iterable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch

from common.architecture import Architecture
from common.groups import SearchSettings
from common.layout import State
from common.learning import Feed
from common.models.networks import allow_network, allowed_networks
from common.process import end_with
from common.progress import Silent
from common.seeds import derive_seed
from dac.recipe import fine_tuning
from dac.train import Diverged, Trained, train_architecture

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor


@dataclass(frozen=True)
class Begun:
    """A network without gates before its final training, and the whole network's weights where it learns from them."""

    name: str
    architecture: Architecture
    state: State
    teacher: State | None


@dataclass(frozen=True)
class _Trainer:
    """All that final trainings have in common."""

    train: Feed
    validation: Feed
    settings: SearchSettings
    seed: int
    accelerator: torch.device

    def __call__(self, begun: Begun) -> Trained:
        """The network after `fine_tune_epochs` epochs; raises Diverged, which says what to change, if they diverge."""
        teacher = (
            None if begun.teacher is None else Architecture.full(begun.architecture.base).build_from(begun.teacher)
        )
        try:
            return train_architecture(
                begun.architecture,
                begun.state,
                self.train,
                self.validation,
                fine_tuning(self.settings),
                seed=derive_seed(self.seed, "final", begun.name),
                accelerator=self.accelerator,
                progress=Silent(),
                teacher=teacher,
                recalibrated=True,
            )
        except Diverged:
            raise Diverged("the training of a found network diverged; lower --search-learning-rate") from None


class Finals:
    """A context in which final trainings are started; leaving it ends those that are under way."""

    def __init__(
        self, train: Feed, validation: Feed, settings: SearchSettings, seed: int, accelerator: torch.device
    ) -> None:
        self._trainer = _Trainer(train, validation, settings, seed, accelerator)
        self._threads = torch.get_num_threads()
        beside = accelerator.type == "cpu" and settings.fine_tune_epochs > 0 and not _of_a_script(allowed_networks())
        self._processes = self._threads // 2 if beside else 0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._processes:
            from loky import ProcessPoolExecutor  # which a machine that searches on a GPU does without

            torch.set_num_threads(self._threads - self._processes)
            known = self._trainer, allowed_networks(), os.getpid()
            self._pool = ProcessPoolExecutor(self._processes, initializer=_begin, initargs=known)
            self._pool.submit(int)  # what processes import takes seconds, in which the search begins
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(kill_workers=True)
            torch.set_num_threads(self._threads)

    def start(self, begun: Begun) -> Future[Trained]:
        """Train it, beside the search or, before this returns, in its place."""
        if self._pool is not None:
            try:
                training: Future[Trained] = self._pool.submit(_train, begun)
                return training
            except BrokenProcessPool:
                pass
        return finished(self._here(begun))

    def result(self, training: Future[Trained], begun: Begun) -> Trained:
        """Wait for it; what a process could not finish, for want of memory, is trained here."""
        try:
            return training.result()
        except BrokenProcessPool:
            return self._here(begun)

    def _here(self, begun: Begun) -> Trained:
        """Train it in this process, with one thread where the others of the search are trained with one."""
        before = torch.get_num_threads()
        torch.set_num_threads(1 if self._processes else before)
        try:
            return self._trainer(begun)
        finally:
            torch.set_num_threads(before)


def _of_a_script(networks: Iterable[str]) -> bool:
    return any(model.startswith("__main__:") for model in networks)


def finished(trained: Trained) -> "Future[Trained]":
    """A training that has this result."""
    future: Future[Trained] = Future()
    future.set_result(trained)
    return future


_trainer: _Trainer | None = None
"""Of a process that trains beside a search."""


def _begin(trainer: _Trainer, networks: Iterable[str], parent: int) -> None:
    global _trainer
    _trainer = trainer
    for model in networks:
        allow_network(model)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search, which ends this process
    end_with(parent)  # a search that is killed leaves nothing computing
    torch.set_num_threads(1)


def _train(begun: Begun) -> Trained:
    assert _trainer is not None
    return _trainer(begun)
