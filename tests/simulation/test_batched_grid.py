"""The grid of the batched engine: who trains together, how long it may take, and who answers for itself."""

import math
from typing import Any, ClassVar

import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.serverapp import Grid
from torch import nn

from client.app import app as real_client
from common.architecture import Architecture
from common.config import Config
from common.errors import ConfigurationError
from common.messages import WEIGHTS, Task
from common.methods.training import TrainingOrder
from common.models import allow_network
from common.models.description import BaseNetwork
from simulation.batched_grid import BatchedGrid
from simulation.engines import run_federation

DEVICES = 5
SETTINGS = Config.from_mapping({"model": "mlp", "devices": DEVICES, "accelerator": "cpu"}).to_mapping()
ARCHITECTURE = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10))
WEIGHTS_SENT = ARCHITECTURE.layout.flatten(ARCHITECTURE.build(0).state_dict())


def questions(grid: Grid, orders: list[dict[str, Any]]) -> list[Message]:
    tasks = [Task("dac", "train", 1, ARCHITECTURE, order, {WEIGHTS: WEIGHTS_SENT}) for order in orders]
    return [Message(task.encode(), node_id, "train") for task, node_id in zip(tasks, grid.get_node_ids(), strict=True)]


@pytest.mark.parametrize(("together", "expected"), [(8, [3, 2, 1, 1, 0]), (2, [1, 0, 1, 1, 0]), (1, [0] * DEVICES)])
def test_one_pull_trains_those_that_wait_for_the_same_work(together: int, expected: list[int]) -> None:
    """How many are done ahead after each reply, where devices 0, 1, 2 and 4 have one order and device 3 another."""
    order = TrainingOrder(batch_size=16).to_mapping()
    orders = [order, order, order, {**order, "batch-size": 8}, order]

    def server(grid: Grid, context: Context) -> list[int]:
        assert isinstance(grid, BatchedGrid)
        ids = list(grid.push_messages(questions(grid, orders)))
        waiting = []
        for message_id in ids:
            [reply] = grid.pull_messages([message_id])
            assert not reply.has_error(), reply.error
            waiting.append(len(grid._ahead))
        return waiting

    assert run_federation("batched", server, real_client, SETTINGS, DEVICES, together=together) == expected


def test_a_device_whose_task_is_wrong_says_so_and_the_others_train_together() -> None:
    order = TrainingOrder(batch_size=16).to_mapping()

    def server(grid: Grid, context: Context) -> list[str]:
        messages = questions(grid, [order] * DEVICES)
        messages[1].content["arrays"] = ArrayRecord({WEIGHTS: Array(WEIGHTS_SENT[:-1])})
        replies = grid.send_and_receive(messages)
        return [str(reply.error.reason) if reply.has_error() else "" for reply in replies]

    found = run_federation("batched", server, real_client, SETTINGS, DEVICES)
    assert [bool(reason) for reason in found] == [False, True, False, False, False]
    assert "weights" in found[1]


def test_devices_that_train_together_share_the_time_that_each_would_have() -> None:
    order = TrainingOrder(batch_size=1, epochs=10_000).to_mapping()

    def server(grid: Grid, context: Context) -> list[str | None]:
        task = Task("dac", "train", 1, ARCHITECTURE, order, {WEIGHTS: WEIGHTS_SENT}, deadline_seconds=0.25)
        messages = [Message(task.encode(), node_id, "train") for node_id in grid.get_node_ids()]
        return [reply.error.reason for reply in grid.send_and_receive(messages)]

    found = run_federation("batched", server, real_client, SETTINGS, DEVICES)
    assert found == ["did not finish step train beside 4 others within 1.25 s"] * DEVICES


class Counting(nn.Module):
    """A network that keeps with how many threads it was computed."""

    threads: ClassVar[set[int]] = set()

    def __init__(self, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(math.prod(input_shape), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            self.threads.add(torch.get_num_threads())
        result: torch.Tensor = self.last(x.flatten(1))
        return result


def test_devices_train_on_one_thread_as_in_the_other_engines() -> None:
    model = f"{__name__}:Counting"
    allow_network(model)
    architecture = Architecture.full(BaseNetwork(model, (1, 8, 8), 10))
    sent = architecture.layout.flatten(architecture.build(0).state_dict())
    task = Task("dac", "train", 1, architecture, TrainingOrder().to_mapping(), {WEIGHTS: sent})
    Counting.threads.clear()

    def server(grid: Grid, context: Context) -> list[bool]:
        messages = [Message(task.encode(), node_id, "train") for node_id in grid.get_node_ids()]
        return [reply.has_error() for reply in grid.send_and_receive(messages)]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        settings = {**SETTINGS, "model": model}
        assert run_federation("batched", server, real_client, settings, DEVICES) == [False] * DEVICES
        assert (Counting.threads, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


def test_a_forgotten_device_is_forgotten_with_what_it_did_ahead() -> None:
    order = TrainingOrder(batch_size=16).to_mapping()

    def server(grid: Grid, context: Context) -> tuple[int, int, list[Message]]:
        assert isinstance(grid, BatchedGrid)
        ids = list(grid.push_messages(questions(grid, [order] * DEVICES)))
        list(grid.pull_messages(ids[:1]))
        ahead = len(grid._ahead)
        grid.forget(ids)
        return ahead, len(grid._ahead), grid.pull_messages(ids)

    assert run_federation("batched", server, real_client, SETTINGS, DEVICES) == (DEVICES - 1, 0, [])


def test_an_impossible_setting_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigurationError, match="--together is for the batched engine"):
        run_federation("ray", lambda grid, context: None, real_client, {}, 1, together=3)
