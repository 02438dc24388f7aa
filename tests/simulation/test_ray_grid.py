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
        self.answer = SimpleNamespace(remote=self._answer)

    def _answer(self, message: Any, context: Any) -> tuple[object, Callable[[], RecordDict]]:
        self.asked += 1

        def state() -> RecordDict:
            if self.error is not None:
                raise self.error
            return RecordDict()

        return ANSWER, state


def grid_of(first: Process, then: list[Process], patch: pytest.MonkeyPatch) -> RayGrid:
    """A grid with one process, in whose place `then` come, one after the other."""
    patch.setattr(ray, "get", lambda reference: reference())
    patch.setattr(ray, "kill", lambda process: None)
    grid = object.__new__(RayGrid)
    super(RayGrid, grid).__init__([{}], {}, SimpleNamespace(run_id=1))  # type: ignore[arg-type]
    grid._workers, grid._idle = [first], SimpleQueue()
    grid._idle.put(first)
    grid._new_worker = lambda: then.pop(0)  # type: ignore[assignment]
    grid._over, grid._replacing = False, Lock()
    grid._threads, grid._sent = ThreadPoolExecutor(1), {}
    return grid


def message() -> Any:
    """As much of one as delivery looks at."""
    return SimpleNamespace(metadata=SimpleNamespace(dst_node_id=1000))


ENDED = [ray.exceptions.ActorDiedError(), ray.exceptions.OutOfMemoryError("the machine's memory ran out")]


@pytest.mark.parametrize("error", ENDED, ids=["died", "out of memory"])
def test_a_message_is_delivered_once_more_to_another_process(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = Process(error), Process()
    grid = grid_of(bad, [good], monkeypatch)
    assert grid._deliver(message()) is ANSWER
    assert (bad.asked, good.asked) == (1, 1)
    assert grid._idle.get() is good


@pytest.mark.parametrize("error", ENDED, ids=["died", "out of memory"])
def test_a_device_that_ends_two_processes_is_an_error_and_the_next_message_finds_a_third(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = Process()
    grid = grid_of(Process(error), [Process(error), third], monkeypatch)
    with pytest.raises(type(error)):
        grid._deliver(message())
    assert grid._deliver(message()) is ANSWER
    assert grid._workers == [third]


def test_a_process_that_cannot_begin_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ray.exceptions.ActorDiedError()
    error._actor_init_failed = True
    grid = grid_of(Process(error), [], monkeypatch)
    with pytest.raises(ray.exceptions.ActorDiedError):
        grid._deliver(message())


def test_at_the_end_of_the_block_nothing_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = grid_of(Process(ray.exceptions.ActorDiedError()), [], monkeypatch)
    grid._over = True
    with pytest.raises(ray.exceptions.ActorDiedError):
        grid._deliver(message())


class Slow(Process):
    """Takes until `released` to answer; `begun` are the ids of the messages that have reached it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.released = Event()
        self.begun: list[str] = []

    def _answer(self, message: Any, context: Any) -> Any:
        self.begun.append(message.metadata.message_id)

        def state() -> RecordDict:
            assert self.released.wait(60)
            return RecordDict()

        return lambda: Message(RecordDict(), reply_to=message), state


def test_the_next_round_does_not_wait_for_what_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three messages the process has begun one when the time is over; the others never reach it."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    process = Slow()
    grid = grid_of(process, [], monkeypatch)

    def questions(count: int) -> list[Message]:
        return [Message(RecordDict(), 1000, "query") for _ in range(count)]

    late, next_round = questions(3), questions(1)
    assert list(exchange(grid, late, timeout=0.3)) == []
    process.released.set()
    assert len(list(exchange(grid, next_round, timeout=60))) == 1
    assert not {one.metadata.message_id for one in late[1:]} & set(process.begun)
    assert process.begun[-1] == next_round[0].metadata.message_id
    assert grid._sent == {}
