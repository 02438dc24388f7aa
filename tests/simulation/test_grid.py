"""The inline grid: one device per pull, real serialisation, deadlines."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from simulation.engines import run_federation
from simulation.grid import InlineGrid


def queries(grid: Grid) -> list[Message]:
    def content() -> RecordDict:
        arrays = ArrayRecord({"a": Array(np.ones(2, np.float32))})
        return RecordDict({"arrays": arrays, "config": ConfigRecord({"n": 1})})

    return [Message(content(), node_id, "query") for node_id in grid.get_node_ids()]


def recording_app() -> tuple[ClientApp, list[int]]:
    app, visited = ClientApp(), []

    @app.query()
    def query(message: Message, context: Context) -> Message:
        visited.append(int(context.node_config["partition-id"]))
        message.content.config_records["config"]["n"] = 2
        return Message(message.content, reply_to=message)

    return app, visited


def test_a_pull_runs_one_device_and_nothing_runs_before() -> None:
    app, visited = recording_app()

    def server(grid: Grid, context: Context) -> list[tuple[int, int]]:
        ids = list(grid.push_messages(queries(grid)))
        steps = [(0, len(visited))]
        while replies := list(grid.pull_messages(ids)):
            steps.append((len(replies), len(visited)))
        return steps

    assert run_federation("inline", server, app, {}, 3) == [(0, 0), (1, 1), (1, 2), (1, 3)]
    assert visited == [0, 1, 2]


def test_replies_name_the_message_and_the_node_they_answer() -> None:
    app, _ = recording_app()

    def server(grid: Grid, context: Context) -> None:
        messages = queries(grid)
        replies = list(grid.send_and_receive(messages))
        assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in messages]
        assert [r.metadata.src_node_id for r in replies] == list(grid.get_node_ids())

    run_federation("inline", server, app, {}, 2)


def test_a_device_cannot_reach_into_the_servers_memory() -> None:
    app, _ = recording_app()

    def server(grid: Grid, context: Context) -> list[ConfigRecord]:
        [message] = queries(grid)
        [reply] = grid.send_and_receive([message])
        return [one.content.config_records["config"] for one in (message, reply)]

    sent, received = run_federation("inline", server, app, {}, 1)
    assert (sent["n"], received["n"]) == (1, 2)


def test_devices_whose_turn_comes_after_the_deadline_do_not_run() -> None:
    app, visited = recording_app()

    def server(grid: Grid, context: Context) -> int:
        late = len(list(grid.send_and_receive(queries(grid), timeout=0.0)))
        return late + len(list(grid.pull_messages([f"message-{n}" for n in range(10)])))

    assert run_federation("inline", server, app, {}, 3) == 0
    assert visited == []


def test_a_client_that_returns_no_message_or_exits_is_an_error_reply() -> None:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            return None  # type: ignore[return-value]
        raise SystemExit(3)

    def server(grid: Grid, context: Context) -> list[tuple[int, str | None]]:
        return [(reply.error.code, reply.error.reason) for reply in grid.send_and_receive(queries(grid))]

    nothing, left = run_federation("inline", server, app, {}, 2)
    assert nothing == (
        ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
        "<class 'TypeError'>:<'the client app returned NoneType, not a Message'>",
    )
    assert left == (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "<class 'SystemExit'>:<'3'>")


def test_a_message_to_nobody_is_refused() -> None:
    app, _ = recording_app()

    def server(grid: Grid, context: Context) -> None:
        grid.push_messages([Message(RecordDict(), 7, "query")])

    with pytest.raises(ValueError, match="no device has the node id 7"):
        run_federation("inline", server, app, {}, 2)


def test_the_engine_gives_an_inline_grid_with_one_node_per_device() -> None:
    app, _ = recording_app()

    def server(grid: Grid, context: Context) -> int:
        assert isinstance(grid, InlineGrid)
        return len(list(grid.get_node_ids()))

    assert run_federation("inline", server, app, {}, 5) == 5


def test_devices_compute_on_one_thread_as_under_ray_and_the_server_on_its_own_number() -> None:
    app, threads = ClientApp(), []

    @app.query()
    def query(message: Message, context: Context) -> Message:
        threads.append(torch.get_num_threads())
        return Message(RecordDict(), reply_to=message)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run_federation("inline", lambda grid, context: grid.send_and_receive(queries(grid)), app, {}, 1)
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
