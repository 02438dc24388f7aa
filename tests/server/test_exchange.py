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


@pytest.fixture
def grid(visited: list[int]) -> InlineGrid:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        visited.append(int(context.node_config["partition-id"]))
        time.sleep(SECONDS)
        return Message(RecordDict(), reply_to=message)

    return InlineGrid(app, [{"partition-id": number} for number in range(DEVICES)], {}, Run.create_empty(1))


def questions(grid: Grid) -> list[Message]:
    return [Message(RecordDict(), node_id, "query") for node_id in grid.get_node_ids()]


def still_answered(grid: Grid, messages: list[Message]) -> int:
    """How many of the messages get a reply if it is asked for now."""
    return len(list(grid.pull_messages([message.metadata.message_id for message in messages])))


def test_what_is_not_answered_in_time_is_withdrawn(grid: InlineGrid, visited: list[int]) -> None:
    messages = questions(grid)
    answered = len(list(exchange(grid, messages, timeout=SECONDS / 2)))
    assert answered < DEVICES
    assert still_answered(grid, messages) == 0
    assert visited == list(range(answered))


def test_devices_that_were_too_slow_answer_what_they_are_asked_next(grid: InlineGrid) -> None:
    list(exchange(grid, questions(grid), timeout=SECONDS / 2))
    messages = questions(grid)
    replies = list(exchange(grid, messages, timeout=100))
    assert [one.metadata.reply_to_message_id for one in replies] == [one.metadata.message_id for one in messages]


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


def test_a_grid_that_cannot_forget_is_left_alone(grid: InlineGrid) -> None:
    assert list(exchange(FlowersGrid(), questions(grid), timeout=0.2)) == []  # type: ignore[arg-type]
