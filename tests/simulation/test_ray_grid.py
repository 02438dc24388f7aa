"""Processes of Ray that end are replaced, and get no message that was withdrawn; Ray itself is not started here."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Lock
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from server.exchange import exchange
from simulation.ray_grid import RayGrid

ANSWER = object()


class Process:
    """An actor's handle that answers every message with `error`, or well where there is none."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, 0
        self.killed = Event()
        self.answer = SimpleNamespace(remote=self._answer)
        self.started = SimpleNamespace(remote=lambda: self._start)

    def _start(self) -> None:
        """Raises `error` if that is about a process that cannot begin."""
        if getattr(self.error, "actor_init_failed", False):
            assert self.error is not None
            raise self.error

    def _answer(self, message: Any, context: Any) -> tuple[object, Callable[[], RecordDict]]:
        self.asked += 1

        def state() -> RecordDict:
            if self.error is not None:
                raise self.error
            return RecordDict()

        return ANSWER, state


def grid_of(
    first: Process | list[Process], then: list[Process], patch: pytest.MonkeyPatch, devices: int = 1
) -> RayGrid:
    """A grid with one process or several, in whose place `then` come, one after the other."""
    processes = first if isinstance(first, list) else [first]
    patch.setattr(ray, "get", lambda reference: reference())
    patch.setattr(ray, "kill", lambda process: process.killed.set())
    grid = object.__new__(RayGrid)
    super(RayGrid, grid).__init__([{}] * devices, {}, SimpleNamespace(run_id=1))  # type: ignore[arg-type]
    grid._workers, grid._idle = list(processes), SimpleQueue()
    for one in processes:
        grid._idle.put(one)
    grid._new_worker = lambda: then.pop(0)  # type: ignore[assignment]
    grid._over, grid._lock = False, Lock()
    grid._threads, grid._sent = ThreadPoolExecutor(len(processes)), {}
    grid._started, grid._under_way = set(), {}
    return grid


def delivered(grid: RayGrid) -> Any:
    """What comes of a message, which here is as much of one as delivery looks at."""
    message: Any = SimpleNamespace(metadata=SimpleNamespace(dst_node_id=1000, message_id="message-1"))
    grid._send("message-1", message)
    return grid._sent.pop("message-1")[1].result()


ENDED = [ray.exceptions.ActorDiedError(), ray.exceptions.OutOfMemoryError("the machine's memory ran out")]


@pytest.mark.parametrize("error", ENDED, ids=["died", "out of memory"])
def test_a_message_is_delivered_once_more_to_another_process(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = Process(error), Process()
    grid = grid_of(bad, [good], monkeypatch)
    assert delivered(grid) is ANSWER
    assert (bad.asked, good.asked) == (1, 1)
    assert grid._idle.get() is good


@pytest.mark.parametrize("error", ENDED, ids=["died", "out of memory"])
def test_a_device_that_ends_two_processes_is_an_error_and_the_next_message_finds_a_third(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = Process()
    grid = grid_of(Process(error), [Process(error), third], monkeypatch)
    with pytest.raises(type(error)):
        delivered(grid)
    assert delivered(grid) is ANSWER
    assert grid._workers == [third]


def test_a_process_that_cannot_begin_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ray.exceptions.ActorDiedError()
    error._actor_init_failed = True
    grid = grid_of(Process(error), [], monkeypatch)
    with pytest.raises(ray.exceptions.ActorDiedError):
        delivered(grid)


def test_at_the_end_of_the_block_nothing_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = grid_of(Process(ray.exceptions.ActorDiedError()), [], monkeypatch)
    grid._over = True
    with pytest.raises(ray.exceptions.ActorDiedError):
        delivered(grid)


class Hanging(Process):
    """A process in which device 1000 hangs until it is killed; `begun` are the ids of what has reached it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    def _answer(self, message: Any, context: Any) -> Any:
        self.begun.append(message.metadata.message_id)

        def state() -> RecordDict:
            if message.metadata.dst_node_id == 1000:
                assert self.killed.wait(60)
            if self.killed.is_set():
                raise ray.exceptions.ActorDiedError
            return RecordDict()

        return lambda: Message(RecordDict(), reply_to=message), state


class Starting(Hanging):
    """A process that takes a while to start; nothing hangs in it then."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = Event()

    def _start(self) -> None:
        assert self.ready.wait(60)

    def _answer(self, message: Any, context: Any) -> Any:
        self.begun.append(message.metadata.message_id)
        return lambda: Message(RecordDict(), reply_to=message), RecordDict


@pytest.fixture
def identity() -> None:
    """Flower refuses to make a message in a process that does not know which run it works for."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def questions(count: int, first: int = 1000) -> list[Message]:
    return [Message(RecordDict(), first + number, "query") for number in range(count)]


@pytest.mark.usefixtures("identity")
def test_a_device_that_hangs_in_every_round_costs_its_own_reply_and_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [Hanging() for _ in range(7)]
    grid = grid_of([*processes[:2]], [*processes[2:]], monkeypatch, devices=3)
    for _ in range(5):
        asked = questions(3)
        replies = list(exchange(grid, asked, timeout=1))
        answered = {one.metadata.reply_to_message_id for one in replies}
        assert answered == {one.metadata.message_id for one in asked[1:]}
    assert [one.killed.is_set() for one in processes].count(True) == 5
    grid._threads.shutdown()
    assert not any(one.killed.is_set() for one in grid._workers)


@pytest.mark.usefixtures("identity")
def test_what_nobody_waits_for_any_more_reaches_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three messages the only process has begun one when the time is over, and hangs."""
    first, second = Hanging(), Hanging()
    grid = grid_of(first, [second], monkeypatch, devices=4)
    late, next_round = questions(3), questions(1, first=1003)
    assert list(exchange(grid, late, timeout=0.3)) == []
    assert len(list(exchange(grid, next_round, timeout=60))) == 1
    assert first.begun == [late[0].metadata.message_id]
    assert second.begun == [next_round[0].metadata.message_id]
    grid._threads.shutdown()
    assert (grid._sent, grid._under_way) == ({}, {})


@pytest.mark.usefixtures("identity")
def test_a_process_that_is_still_starting_is_not_ended_for_a_round_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a run whose rounds are shorter than that would never have a process."""
    process = Starting()
    grid = grid_of(process, [], monkeypatch)
    assert list(exchange(grid, questions(1), timeout=0.2)) == []
    process.ready.set()
    next_round = questions(1)
    assert len(list(exchange(grid, next_round, timeout=60))) == 1
    assert process.begun == [next_round[0].metadata.message_id]
    assert not process.killed.is_set()
