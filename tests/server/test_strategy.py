"""The strategy by itself: what it sends, and that Flower's own loop can drive it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from common.architecture import Architecture
from common.config import Config
from common.messages import Task
from common.models.description import BaseNetwork
from common.progress import Silent
from server.cohorts import Cohort, FederationState
from server.devices import Device
from server.handshake import Greeter, handshake
from server.strategy import CohortStrategy
from simulation.grid import InlineGrid

BASE = BaseNetwork("mlp", (1, 8, 8), 10)
NAMES = ["device-00", "device-01", "device-02"]


def cohort(number: int, channels: int, devices: list[str]) -> Cohort:
    architecture = Architecture.with_kept(BASE, {"hidden": range(channels)})
    weights = architecture.layout.flatten(architecture.build(0).state_dict())
    return Cohort(f"cohort-{number}", architecture, weights, 0.5, devices)


@pytest.fixture
def with_strategy(run_inline: Callable[..., Any], small_config: Callable[..., Config]) -> Callable[..., Any]:
    """Call `work(strategy, state, grid)` for two cohorts of two and one devices; returns its result and the events."""

    def run(work: Callable[[CohortStrategy, FederationState, Grid], Any], **settings: Any) -> Any:
        config = small_config(**settings)
        events: list[dict[str, Any]] = []

        def server(grid: InlineGrid) -> Any:
            found = handshake(Greeter(grid, 5, Silent()), 3, 5, Silent())
            devices: dict[str, Device] = {device.name: device for device in found}
            state = FederationState([cohort(0, 64, NAMES[:2]), cohort(1, 16, NAMES[2:])])

            def record(event: str, **fields: Any) -> None:
                events.append({"event": event, **fields})

            strategy = CohortStrategy(state, devices, config, record, Silent())
            return work(strategy, state, grid)

        return run_inline(server, config), events

    return run


def configure(strategy: CohortStrategy, state: FederationState, grid: Grid) -> list[Message]:
    return strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid)


def test_every_device_is_sent_its_cohorts_model(with_strategy: Callable[..., Any]) -> None:
    messages, _ = with_strategy(configure, round_timeout=50, local_epochs="3", learning_rate=0.25)
    assert type(messages) is list  # Flower's HTTP grid crashes on a generator
    tasks = [Task.decode(message.content) for message in messages]
    assert [task.architecture.sizes["hidden"] for task in tasks] == [64, 64, 16]
    assert [(task.round, task.epochs, task.learning_rate) for task in tasks] == [(1, 3, 0.25)] * 3
    assert all(0 < message.metadata.ttl < 50 for message in messages)
    assert all(task.deadline_seconds < 50 for task in tasks)


def test_devices_of_a_cohort_share_one_copy_of_the_weights_and_nothing_else(
    with_strategy: Callable[..., Any],
) -> None:
    (first, second, third), _ = with_strategy(configure)
    assert first.content["weights"] is second.content["weights"]
    assert first.content["weights"] is not third.content["weights"]
    assert first.content["task"] is not second.content["task"]
    assert first.content is not second.content


def test_a_device_that_is_offline_is_not_asked(with_strategy: Callable[..., Any]) -> None:
    def without_the_first(strategy: CohortStrategy, state: FederationState, grid: InlineGrid) -> list[Message]:
        del grid._contexts[1000]
        return configure(strategy, state, grid)

    messages, _ = with_strategy(without_the_first)
    assert [message.metadata.dst_node_id for message in messages] == [1001, 1002]


def test_evaluation_on_the_devices_is_off_by_default(with_strategy: Callable[..., Any]) -> None:
    def evaluate(strategy: CohortStrategy, state: FederationState, grid: Grid) -> list[Message]:
        return strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), grid)

    assert with_strategy(evaluate)[0] == []
    assert len(with_strategy(evaluate, device_evaluation=True)[0]) == 3


def test_flowers_own_loop_drives_it(with_strategy: Callable[..., Any]) -> None:
    def start(strategy: CohortStrategy, state: FederationState, grid: Grid) -> tuple[Any, FederationState]:
        return strategy.start(grid, ArrayRecord(), num_rounds=2, timeout=60), state

    (result, state), events = with_strategy(start, device_evaluation=True)
    assert dict(result.train_metrics_clientapp[2]) == {"sampled": 3, "trained": 3}
    assert dict(result.evaluate_metrics_clientapp[2]) == {"evaluated": 3}
    assert [event["round"] for event in events if event["event"] == "round"] == [1, 1, 2, 2]
    for after, before in zip(state.cohorts, (cohort(0, 64, []), cohort(1, 16, [])), strict=True):
        assert after.weights.shape == before.weights.shape
        assert not np.array_equal(after.weights, before.weights)


def test_the_loss_of_a_round_is_the_mean_over_its_samples(with_strategy: Callable[..., Any]) -> None:
    def one_round(strategy: CohortStrategy, state: FederationState, grid: Grid) -> Any:
        replies = list(grid.send_and_receive(configure(strategy, state, grid)))
        results = [(r.content["result"]["num-examples"], r.content["result"]["loss"]) for r in replies]
        strategy.aggregate_train(1, replies)
        return results

    results, events = with_strategy(one_round)
    (first, second) = [event for event in events if event["event"] == "round"]
    assert first["samples"] == results[0][0] + results[1][0]
    expected = (results[0][0] * results[0][1] + results[1][0] * results[1][1]) / first["samples"]
    assert first["train_loss"] == pytest.approx(expected)
    assert second["train_loss"] == pytest.approx(results[2][1])
