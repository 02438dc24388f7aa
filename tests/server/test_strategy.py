"""The strategy by itself: what it sends, and that Flower's own loop can drive it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from common.architecture import Architecture
from common.config import Config
from common.message_arrays import content_bytes
from common.messages import EvaluateResult, Task
from common.models.description import BaseNetwork
from common.progress import Silent
from server.cohorts import Cohort, FederationState
from server.devices import Device
from server.handshake import Greeter, handshake
from server.methods.averaged import Averaged
from server.report.own_scores import OWN_EVENT
from server.strategy import MethodStrategy
from simulation.grid import InlineGrid
from tests.server.helpers import architecture_of

BASE = BaseNetwork("mlp", (1, 8, 8), 10)
NAMES = ["device-00", "device-01", "device-02"]
STEPS = ("train", "evaluate")


def cohort(number: int, channels: int, devices: list[str]) -> Cohort:
    architecture = Architecture.with_kept(BASE, {"hidden": range(channels)})
    weights = architecture.layout.flatten(architecture.build(0).state_dict())
    return Cohort(f"cohort-{number}", architecture, weights, 0.5, devices)


@pytest.fixture
def with_strategy(
    run_inline: Callable[..., Any], small_config: Callable[..., Config], make_method: Callable[..., Averaged]
) -> Callable[..., Any]:
    """Call `work(strategy, grid)` for two cohorts of two and one devices; returns its result and the method."""

    def run(work: Callable[[MethodStrategy, Grid], Any], **settings: Any) -> Any:
        config = small_config(**settings)
        method = make_method([cohort(0, 64, NAMES[:2]), cohort(1, 16, NAMES[2:])], config)

        def server(grid: InlineGrid) -> Any:
            found = handshake(Greeter(grid, 5, Silent()), 3, 5, Silent())
            devices: dict[str, Device] = {device.name: device for device in found}
            return work(MethodStrategy(method, FederationState(), devices, method.run), grid)

        return run_inline(server, config), method

    return run


def events(method: Averaged, name: str) -> list[dict[str, Any]]:
    return method.run.folder.events(name)


def configure(strategy: MethodStrategy, grid: Grid) -> list[Message]:
    return strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid)


def test_every_device_is_sent_its_cohorts_model(with_strategy: Callable[..., Any]) -> None:
    messages, _ = with_strategy(configure, round_timeout=50, local_epochs="3", learning_rate=0.25)
    assert type(messages) is list  # Flower's HTTP grid crashes on a generator
    tasks = [Task.decode(message.content, Architecture) for message in messages]
    assert [architecture_of(task).sizes["hidden"] for task in tasks] == [64, 64, 16]
    assert [(task.method, task.step, task.round) for task in tasks] == [("dac", "train", 1)] * 3
    assert [(task.order["epochs"], task.order["learning-rate"]) for task in tasks] == [(3, 0.25)] * 3
    assert all(0 < message.metadata.ttl < 50 for message in messages)
    assert all(task.deadline_seconds < 50 for task in tasks)


def test_devices_of_a_cohort_share_one_copy_of_the_weights_and_nothing_else(
    with_strategy: Callable[..., Any],
) -> None:
    (first, second, third), _ = with_strategy(configure)
    assert first.content["arrays"] is second.content["arrays"]
    assert first.content["arrays"] is not third.content["arrays"]
    assert first.content["task"] is not second.content["task"]
    assert first.content is not second.content


def test_a_device_that_is_offline_is_not_asked(with_strategy: Callable[..., Any]) -> None:
    def without_the_first(strategy: MethodStrategy, grid: InlineGrid) -> list[Message]:
        del grid._node_configs[1000]
        return configure(strategy, grid)

    messages, _ = with_strategy(without_the_first)
    assert [message.metadata.dst_node_id for message in messages] == [1001, 1002]


def evaluate(number: int) -> Callable[[MethodStrategy, Grid], list[Message]]:
    return lambda strategy, grid: strategy.configure_evaluate(number, ArrayRecord(), ConfigRecord(), grid)


def test_devices_are_asked_to_evaluate_after_the_last_round(with_strategy: Callable[..., Any]) -> None:
    assert with_strategy(evaluate(1), rounds=2)[0] == []
    assert len(with_strategy(evaluate(2), rounds=2)[0]) == 3
    assert with_strategy(evaluate(2), rounds=2, device_evaluation=False)[0] == []


def test_a_run_that_stops_early_ends_with_it_too(with_strategy: Callable[..., Any]) -> None:
    def stopped(strategy: MethodStrategy, grid: Grid) -> list[Message]:
        strategy._state.stopped_early = True
        return evaluate(1)(strategy, grid)

    assert len(with_strategy(stopped, rounds=2, patience=1)[0]) == 3


def test_who_holds_no_images_out_is_not_asked_to_evaluate(with_strategy: Callable[..., Any]) -> None:
    """Eight images a device are too few to hold any out; nobody fails for that."""
    messages, method = with_strategy(evaluate(2), rounds=2, train_images=40, reference_fraction=0.4)
    assert messages == []
    assert events(method, "step") == []


def test_who_was_late_in_the_last_round_is_not_waited_for_again(with_strategy: Callable[..., Any]) -> None:
    def without_the_first(strategy: MethodStrategy, grid: InlineGrid) -> list[Message]:
        strategy.aggregate_train(1, list(grid.send_and_receive(configure(strategy, grid)))[1:])
        return evaluate(1)(strategy, grid)

    messages, _ = with_strategy(without_the_first, rounds=1)
    assert [message.metadata.dst_node_id for message in messages] == [1001, 1002]


def test_every_device_scores_its_model_on_its_own_images(with_strategy: Callable[..., Any]) -> None:
    def score(strategy: MethodStrategy, grid: Grid) -> list[Message]:
        replies = list(grid.send_and_receive(evaluate(1)(strategy, grid)))
        assert strategy.aggregate_evaluate(1, reversed(replies)) == {"evaluated": 3}
        return replies

    replies, method = with_strategy(score, rounds=1)
    scores = [EvaluateResult.decode(reply.content) for reply in replies]
    assert [(one["device"], one["cohort"]) for one in events(method, OWN_EVENT)] == [
        *((name, "cohort-0") for name in NAMES[:2]),
        (NAMES[2], "cohort-1"),
    ]
    assert [(one["own_accuracy"], one["own_images"]) for one in events(method, OWN_EVENT)] == [
        (one.accuracy, one.samples) for one in scores
    ]
    assert {one.samples for one in scores} <= {33, 34}  # a tenth of 335 or 336 images


def test_flowers_own_loop_drives_it(with_strategy: Callable[..., Any]) -> None:
    def start(strategy: MethodStrategy, grid: Grid) -> Any:
        return strategy.start(grid, strategy.arrays(), num_rounds=2, timeout=60)

    result, method = with_strategy(start, rounds=2)
    assert dict(result.train_metrics_clientapp[2]) == {"sampled": 3, "trained": 3}
    assert dict(result.evaluate_metrics_clientapp[2]) == {"evaluated": 3}
    assert [event["round"] for event in events(method, "round")] == [1, 1, 2, 2]
    for after, before in zip(method.cohorts, (cohort(0, 64, []), cohort(1, 16, [])), strict=True):
        assert after.weights.shape == before.weights.shape
        assert not np.array_equal(after.weights, before.weights)
        assert result.arrays[after.name].numpy().tobytes() == after.weights.tobytes()


def test_the_loss_of_a_round_is_the_mean_over_its_samples(with_strategy: Callable[..., Any]) -> None:
    def one_round(strategy: MethodStrategy, grid: Grid) -> Any:
        replies = list(grid.send_and_receive(configure(strategy, grid)))
        results = [(r.content["result"]["num-examples"], r.content["result"]["loss"]) for r in replies]
        strategy.aggregate_train(1, replies)
        return results

    results, method = with_strategy(one_round)
    first, second = events(method, "round")
    assert first["samples"] == results[0][0] + results[1][0]
    expected = (results[0][0] * results[0][1] + results[1][0] * results[1][1]) / first["samples"]
    assert first["train_loss"] == pytest.approx(expected)
    assert second["train_loss"] == pytest.approx(results[2][1])


def test_every_byte_and_every_mac_is_counted_once(with_strategy: Callable[..., Any]) -> None:
    def one_round(strategy: MethodStrategy, grid: Grid) -> tuple[list[Message], list[Message]]:
        sent, replies = [], []
        for ask, take in (
            (strategy.configure_train, strategy.aggregate_train),
            (strategy.configure_evaluate, strategy.aggregate_evaluate),
        ):
            messages = ask(1, ArrayRecord(), ConfigRecord(), grid)
            answers = list(grid.send_and_receive(messages))
            take(1, answers)
            sent += messages
            replies += answers
        return sent, replies

    (sent, replies), method = with_strategy(one_round, rounds=1, local_epochs="2")
    steps = events(method, "step")
    assert [(one["cohort"], one["step"], one["asked"], one["answers"]) for one in steps] == [
        *(("cohort-0", "train", 2, 2), ("cohort-1", "train", 1, 1)),
        *(("cohort-0", "evaluate", 2, 2), ("cohort-1", "evaluate", 1, 1)),
    ]
    assert sum(one["bytes_down"] for one in steps) == sum(content_bytes(one.content) for one in sent)
    assert sum(one["bytes_up"] for one in steps) == sum(content_bytes(one.content) for one in replies)
    for kept in method.cohorts:
        for step, spent in kept.spent.items():
            (event,) = [one for one in steps if (one["cohort"], one["step"]) == (kept.name, step)]
            assert (spent.bytes_down, spent.bytes_up) == (event["bytes_down"], event["bytes_up"])
            assert (spent.device_macs, spent.answers) == (event["device_macs"], event["answers"])
    samples = [reply.content["result"]["num-examples"] for reply in replies]
    macs = [kept.network.costs.macs for kept in method.cohorts]
    # two epochs of three passes each over the training images, one pass over those held out
    assert steps[0]["device_macs"] == 6 * macs[0] * (samples[0] + samples[1])
    assert steps[1]["device_macs"] == 6 * macs[1] * samples[2]
    assert steps[2]["device_macs"] == macs[0] * (samples[3] + samples[4])
    assert steps[3]["device_macs"] == macs[1] * samples[5]


def test_a_device_that_counts_for_less_is_charged_for_all_it_did(with_strategy: Callable[..., Any]) -> None:
    """`--max-device-share` caps what a device weighs, not what it computes."""

    def play(strategy: MethodStrategy, grid: Grid) -> float:
        strategy.start(grid, strategy.arrays(), num_rounds=1, timeout=60)
        return strategy._state.simulated_seconds

    found = []
    for share in (1.0, 0.5):
        seconds, method = with_strategy(play, rounds=1, partition="dirichlet:0.3", max_device_share=share)
        samples = sum(one["samples"] for one in events(method, "round")[-2:])
        found.append((samples, seconds, [one["device_macs"] for one in events(method, "step")[-4:]]))
    (all_samples, *whole), (fewer, *capped) = found
    assert fewer < all_samples
    assert capped == whole


def test_a_claim_beyond_all_images_of_the_run_does_not_become_its_costs(with_strategy: Callable[..., Any]) -> None:
    """One of three devices registers and claims 2^40 images; it is charged for those that all devices share."""

    def play(strategy: MethodStrategy, grid: Grid) -> int:
        (liar, *_) = NAMES
        device = strategy._devices[liar]
        strategy._devices[liar] = replace(device, report=replace(device.report, samples=2**40))
        messages = configure(strategy, grid)
        replies = list(grid.send_and_receive(messages, timeout=60))
        for reply in replies:
            if reply.metadata.src_node_id == device.node_id:
                reply.content.metric_records["result"]["num-examples"] = 2**40
        strategy.aggregate_train(1, replies)
        assert strategy.outcomes[liar].status == "trained"
        return strategy._run.reference.shared_images + strategy._devices[NAMES[1]].report.samples

    charged, method = with_strategy(play, local_epochs="1")
    step = next(one for one in events(method, "step") if one["cohort"] == "cohort-0")
    assert step["device_macs"] == 3 * 74 * 64 * charged
    assert step["simulated_seconds"] < 1000


@pytest.mark.parametrize("evaluates", [True, False])
def test_a_step_takes_as_long_in_simulated_time_as_its_slowest_device(
    evaluates: bool, with_strategy: Callable[..., Any]
) -> None:
    """Phones: three forward passes per epoch and image, and the bytes of the device's own messages, on half a link."""

    def play(strategy: MethodStrategy, grid: Grid) -> tuple[float, dict[str, int]]:
        strategy.start(grid, strategy.arrays(), num_rounds=1, timeout=60)
        return strategy._state.simulated_seconds, {n: one.report.samples for n, one in strategy._devices.items()}

    (total, samples), method = with_strategy(play, rounds=1, local_epochs="2", device_evaluation=evaluates)
    found = {(one["step"], one["cohort"]): one for one in events(method, "step")}
    for cohort, channels, names in (("cohort-0", 64, NAMES[:2]), ("cohort-1", 16, NAMES[2:])):
        event = found["train", cohort]
        macs = 3 * 2 * 74 * channels * max(samples[name] for name in names)
        down, up = event["bytes_down"] / len(names), event["bytes_up"] / len(names)
        seconds = macs / (4 * 8 * 2.4e9 * 0.2) + 2 * 8 * (down / 150e6 + up / 50e6)
        assert event["simulated_seconds"] == pytest.approx(seconds, rel=1e-6)
    steps = STEPS if evaluates else STEPS[:1]
    slowest = [max(one["simulated_seconds"] for (step, _), one in found.items() if step == name) for name in steps]
    assert total == pytest.approx(sum(slowest))
    assert all(slowest)
