"""What becomes of messages that are not answered in time: their grid forgets them, if it can."""

import time
from collections.abc import Iterable

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from server.exchange import exchange
from simulation.grid import InlineGrid

DEVICES = 3
SECONDS = 0.3
"""What each device takes to answer; in this process they answer one after the other."""


@pytest.fixture
def visited() -> list[int]:
    """The partitions of the devices that have begun to answer, in order."""
    return []


class StuckGrid(InlineGrid):
    """Device 1 does not begin to answer as long as it is `stuck`."""

    stuck = False

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return super().pull_messages(one for one in message_ids if not (self.stuck and self._is_for_device_1(one)))

    def _is_for_device_1(self, message_id: str) -> bool:
        return message_id in self._pending and self._pending[message_id].metadata.dst_node_id == 1001


@pytest.fixture
def grid(visited: list[int]) -> StuckGrid:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        visited.append(int(context.node_config["partition-id"]))
        time.sleep(SECONDS)
        return Message(RecordDict(), reply_to=message)

    return StuckGrid(app, [{"partition-id": number} for number in range(DEVICES)], {}, Run.create_empty(1))


def questions(grid: Grid) -> list[Message]:
    return [Message(RecordDict(), node_id, "query") for node_id in grid.get_node_ids()]


def still_answered(grid: Grid, messages: list[Message]) -> int:
    """How many of the messages get a reply if it is asked for now."""
    return len(list(grid.pull_messages([message.metadata.message_id for message in messages])))


def test_what_is_not_answered_in_time_is_withdrawn(grid: StuckGrid, visited: list[int]) -> None:
    messages = questions(grid)
    grid.stuck = True
    assert len(list(exchange(grid, messages, timeout=0.2))) == DEVICES - 1
    grid.stuck = False
    assert still_answered(grid, messages) == 0
    assert visited == [0, 2]


def test_a_device_that_was_too_slow_answers_what_it_is_asked_next(grid: StuckGrid) -> None:
    grid.stuck = True
    list(exchange(grid, questions(grid), timeout=0.2))
    grid.stuck = False
    messages = questions(grid)
    replies = list(exchange(grid, messages, timeout=100))
    assert [one.metadata.reply_to_message_id for one in replies] == [one.metadata.message_id for one in messages]


def test_no_simulated_device_is_late_because_others_were_before_it(grid: StuckGrid) -> None:
    """Together they take longer than a round may; so they would on a machine that is busy with something else."""
    assert len(list(exchange(grid, questions(grid), timeout=1.5 * SECONDS))) == DEVICES


def test_the_servers_own_work_is_no_devices_time(grid: StuckGrid) -> None:
    replies = 0
    for _ in exchange(grid, questions(grid), timeout=0.2):
        time.sleep(0.3)
        replies += 1
    assert replies == DEVICES


def test_a_server_that_stops_to_listen_withdraws_the_rest(grid: InlineGrid, visited: list[int]) -> None:
    messages = questions(grid)
    replies = exchange(grid, messages, timeout=100)
    next(replies)
    replies.close()  # type: ignore[attr-defined]  # what an exception in the loop around it does, too
    assert still_answered(grid, messages) == 0
    assert visited == [0]


class FlowersGrid:
    """As much of a grid of Flower's as an exchange looks at: nobody answers, and it has nothing to forget with."""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return [f"message-{number}" for number, _ in enumerate(messages)]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return []


class RemoteGrid(FlowersGrid):
    """One of Flower's on which each device answers after the other, all the same."""

    def __init__(self, grid: InlineGrid) -> None:
        self.push_messages = grid.push_messages  # type: ignore[method-assign]
        self.pull_messages = grid.pull_messages  # type: ignore[method-assign]


def test_real_devices_have_the_time_of_the_round_and_no_more(grid: StuckGrid) -> None:
    answered = list(exchange(RemoteGrid(grid), questions(grid), timeout=1.5 * SECONDS))  # type: ignore[arg-type]
    assert len(answered) < DEVICES


def test_a_grid_that_cannot_forget_is_left_alone(grid: InlineGrid) -> None:
    assert list(exchange(FlowersGrid(), questions(grid), timeout=0.2)) == []  # type: ignore[arg-type]
