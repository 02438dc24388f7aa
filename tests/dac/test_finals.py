"""Final trainings beside the search: the same networks as one after the other, and nothing left over."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.errors import DataError, FedDACError
from common.groups import SearchSettings
from common.learning import Feed
from common.models import allow_network
from common.models.description import BaseNetwork
from common.slicing import state_of
from dac.finals import Begun, Finals
from dac.train import Trained
from tests.common.models.users import sequential
from tests.dac.test_search import Killed, KilledAfter, assert_same, run

NETWORK = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 4))
BEGUN = Begun("0", NETWORK, state_of(NETWORK.build(0)), None)


class Broken(Preprocessor):
    """Images that cannot be prepared."""

    def __init__(self) -> None:
        super().__init__(torch.tensor([0.2]), torch.tensor([0.25]), "none")

    def eval_batch(self, images: torch.Tensor) -> torch.Tensor:
        raise DataError("the images are gone")


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def finals(feeds: tuple[Feed, Feed], **settings: float) -> Finals:
    return Finals(*feeds, SearchSettings(fine_tune_epochs=1, **settings), 0, torch.device("cpu"))


@pytest.mark.usefixtures("two_threads")
def test_a_search_with_processes_beside_it_finds_the_same_family(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    beside = run(feeds, tmp_path / "beside")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert_same(beside, run(feeds, tmp_path / "alone"))


@pytest.mark.usefixtures("two_threads")
def test_a_network_of_a_script_is_trained_where_the_script_runs(
    feeds: tuple[Feed, Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other process could import it."""
    monkeypatch.setattr(sys.modules["__main__"], "network_of_a_script", sequential, raising=False)
    monkeypatch.setattr("common.models.networks._allowed", {"__main__:network_of_a_script"})
    network = Architecture.full(BaseNetwork("__main__:network_of_a_script", (1, 8, 8), 4))
    begun = Begun("0", network, state_of(network.build(0)), None)
    with finals(feeds) as beside:
        assert beside.result(beside.start(begun), begun).validation_accuracy > 0
        assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_what_a_killed_process_did_not_finish_is_trained_by_the_search(feeds: tuple[Feed, Feed]) -> None:
    with finals(feeds) as beside:
        before = beside.start(BEGUN)
        assert beside.result(before, BEGUN).validation_accuracy > 0
        (process,) = children()
        os.kill(process, signal.SIGKILL)
        trained = [beside.result(beside.start(BEGUN), BEGUN) for _ in range(3)]
    for one in trained:
        assert all(torch.equal(value, before.result().state[name]) for name, value in one.state.items())


def test_what_no_process_finished_is_trained_once(
    feeds: tuple[Feed, Feed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(feeds, tmp_path / "whole")
    trained: list[str] = []
    here = Finals._here

    def broken(finals: Finals, begun: Begun) -> Future[Trained]:
        future: Future[Trained] = Future()
        future.set_exception(BrokenProcessPool())
        return future

    def counted(finals: Finals, begun: Begun) -> Trained:
        trained.append(begun.name)
        return here(finals, begun)

    monkeypatch.setattr(Finals, "start", broken)
    monkeypatch.setattr(Finals, "_here", counted)
    monkeypatch.setattr("dac.search.SHARE", 1.0)  # a checkpoint after every step, which asks what is trained
    assert_same(run(feeds, tmp_path / "broken"), expected)
    assert "teacher" in trained
    assert len(trained) == len(set(trained))


class Unfinished(Future[Trained]):
    """A training in a process that is still at work whenever it is asked, and gone when it is waited for."""

    def done(self) -> bool:
        return False

    def result(self, timeout: float | None = None) -> Trained:
        raise BrokenProcessPool


def test_a_network_whose_training_goes_on_when_the_search_is_killed_learns_as_it_would_have(
    feeds: tuple[Feed, Feed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was found before there was a teacher."""
    expected = run(feeds, tmp_path / "whole")
    monkeypatch.setattr(Finals, "start", lambda finals, begun: Unfinished())
    monkeypatch.setattr("dac.search.SHARE", 1.0)  # a checkpoint after every step
    for calls in (3, 5):
        folder = tmp_path / f"killed-{calls}"
        with pytest.raises(Killed):
            run(feeds, folder, KilledAfter(calls))
        assert_same(run(feeds, folder), expected)


@pytest.mark.usefixtures("two_threads")
def test_a_training_that_diverges_says_what_to_change(feeds: tuple[Feed, Feed]) -> None:
    with (
        finals(feeds, search_learning_rate=1e12) as beside,
        pytest.raises(FedDACError, match="lower --search-learning-rate"),
    ):
        beside.result(beside.start(BEGUN), BEGUN)


@pytest.mark.usefixtures("two_threads")
def test_a_users_network_is_trained_beside_the_search_like_ours(feeds: tuple[Feed, Feed]) -> None:
    model = "tests.common.models.users:thirty_lines"
    allow_network(model)
    network = Architecture.full(BaseNetwork(model, (1, 8, 8), 4))
    begun = Begun("0", network, state_of(network.build(0)), None)
    with finals(feeds) as beside:
        trained = beside.result(beside.start(begun), begun)
        alone = beside._here(begun)
    assert all(torch.equal(value, alone.state[name]) for name, value in trained.state.items())


def test_what_is_no_divergence_is_not_called_one(feeds: tuple[Feed, Feed]) -> None:
    with (
        finals((feeds[0], replace(feeds[1], preprocessor=Broken()))) as here,
        pytest.raises(DataError, match="the images are gone"),
    ):
        here.start(BEGUN)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_processes_of_a_killed_search_end_too() -> None:
    program = """
import time
import torch
from common.groups import SearchSettings
from dac.finals import Finals

torch.set_num_threads(2)
with Finals(None, None, SearchSettings(), 0, torch.device("cpu")) as finals:
    finals._pool.submit(int).result()
    print("begun", flush=True)
    time.sleep(60)
"""
    search = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert search.stdout is not None
    assert search.stdout.readline() == "begun\n"
    processes = children(search.pid)
    assert processes
    search.kill()
    search.wait()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{one}").exists() for one in processes):
        assert time.monotonic() < until
        time.sleep(0.1)


def children(parent: int | None = None) -> list[int]:
    """The processes of a pool, whose command names loky."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            command = (status.parent / "cmdline").read_text()
            ancestor = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if ancestor == (parent or os.getpid()) and "LokyProcess" in command:
            found.append(int(status.parent.name))
    return found
