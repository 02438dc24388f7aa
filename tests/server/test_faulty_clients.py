"""A federation among whose devices one does everything wrong: the round goes on, and the metrics name the culprit."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from client.app import app as real_client
from client.data import device_data
from client.methods.dac import STEPS
from client.steps import run_step
from common.architecture import Architecture
from common.config import Config
from common.errors import FederationError
from common.messages import Result, Task
from common.methods.training import TRAIN, TrainingOrder
from common.progress import Silent
from server.cohorts import FederationState
from server.federation import federate
from server.run_folder import RunFolder
from simulation.grid import InlineGrid
from tests.altered_client import altered_client
from tests.server.helpers import Notes, architecture_of

CULPRIT = 1
NAME = "device-01"
Corrupt = Callable[[Message, Message], Message]


def faulty_app(corrupt: Corrupt, culprits: Iterable[int] = (CULPRIT,)) -> ClientApp:
    """The real client, except that the replies of the culprits' training go through `corrupt(request, reply)`."""

    def alter(request: Message, reply: Message, context: Context) -> Message:
        return corrupt(request, reply) if int(context.node_config["partition-id"]) in culprits else reply

    return altered_client(alter)


def raises(request: Message, reply: Message) -> Message:
    raise ValueError("out of\nbattery")


def dies(request: Message, reply: Message) -> Message:
    raise SystemExit(1)


def with_weights(change: Callable[[np.ndarray], np.ndarray]) -> Corrupt:
    def corrupt(request: Message, reply: Message) -> Message:
        array = change(reply.content["arrays"]["weights"].numpy().copy())
        reply.content["arrays"] = ArrayRecord({"weights": Array(array)})
        return reply

    return corrupt


def with_value(record: str, key: str, value: Any) -> Corrupt:
    def corrupt(request: Message, reply: Message) -> Message:
        reply.content[record][key] = value
        return reply

    return corrupt


def foreign_architecture(request: Message, reply: Message) -> Message:
    task = Task.decode(request.content, Architecture)
    other = Architecture.with_kept(architecture_of(task).base, {"hidden": range(9)})
    weights = np.zeros(other.layout.size, np.float32)
    result = Result("dac", "train", task.round, 5, 0.1, 0.1, 1, {"weights": weights})
    return Message(result.encode(), reply_to=request)


def nan_at_end(weights: np.ndarray) -> np.ndarray:
    weights[-1] = np.nan
    return weights


FAULTS: dict[str, tuple[Corrupt, str, str]] = {
    "raises": (raises, "failed", "battery"),
    "dies": (dies, "failed", "SystemExit"),
    "not a number": (with_weights(nan_at_end), "rejected", "not finite"),
    "infinite": (with_weights(lambda weights: weights + np.float32(np.inf)), "rejected", "not finite"),
    "huge": (with_weights(lambda weights: weights * 1e9), "rejected", "norm"),
    "one value too many": (with_weights(lambda weights: np.append(weights, weights[:1])), "rejected", "shape"),
    "another shape": (with_weights(lambda weights: weights[None]), "rejected", "shape"),
    "another type": (with_weights(lambda weights: weights.astype(np.float64)), "rejected", "float64"),
    "another architecture": (foreign_architecture, "rejected", "weights must be <f4 of shape ("),
    "too many samples": (with_value("result", "num-examples", 10**18), "rejected", "samples"),
    "no samples": (with_value("result", "num-examples", 0), "rejected", "0 samples"),
    "infinite loss": (with_value("result", "loss", float("inf")), "rejected", "loss"),
    "replay of an old round": (with_value("echo", "round", 0), "rejected", "round 0"),
    "empty text": (with_value("echo", "method", ""), "rejected", "step 'train' of ''"),
    "another method": (with_value("echo", "method", "fedavg"), "rejected", "step 'train' of 'fedavg'"),
    "another step": (with_value("echo", "step", "search"), "rejected", "step 'search' of 'dac'"),
}


class MuteGrid(InlineGrid):
    """The culprit's training reply never arrives."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = super().pull_messages(message_ids)
        return [r for r in replies if not ("arrays" in r.content and r.metadata.src_node_id == 1000 + CULPRIT)]


class StrangerGrid(InlineGrid):
    """Every reply arrives twice, and as if node 1 had sent it."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = super().pull_messages(message_ids)
        for reply in replies:
            reply.metadata.__dict__["_src_node_id"] = 1
        return [*replies, *replies]


class ExpiredGrid(InlineGrid):
    """Flower answers for the culprit, whose time to live has passed."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        asked = {one: self._pending[one] for one in message_ids if one in self._pending}
        replies = super().pull_messages(message_ids)
        expired = Error(ErrorCode.MESSAGE_UNAVAILABLE, "Message Unavailable - The requested message " * 9)
        return [
            Message(expired, reply_to=asked[r.metadata.reply_to_message_id])
            if "arrays" in r.content and r.metadata.src_node_id == 1000 + CULPRIT
            else r
            for r in replies
        ]


TOO_LATE = "no reply within 2 s; raise --round-timeout if devices need longer"


@pytest.fixture
def run(
    run_inline: Callable[..., Any], small_config: Callable[..., Config], run_folder: RunFolder
) -> Callable[..., Any]:
    """Run one small federation of three devices with the given client app or grid."""

    def start(
        client_app: ClientApp = real_client, grid_class: type[InlineGrid] = InlineGrid, **settings: Any
    ) -> Config:
        config = small_config(**{"rounds": 1, **settings})
        run_inline(lambda grid: federate(grid, config, run_folder, Silent(), False), config, client_app, grid_class)
        return config

    return start


def mean_of_the_good(folder: RunFolder, config: Config, names: Iterable[int]) -> np.ndarray:
    """What the devices of these partitions alone make of the model that the search left, each round a weighted mean."""
    from dac.files import load_member

    member = load_member(folder.architecture_path("cohort-0"))
    settings = config.federation
    mean = member.architecture.layout.flatten(member.state)
    order = TrainingOrder(
        epochs=int(settings.local_epochs),
        batch_size=settings.local_batch_size,
        learning_rate=settings.learning_rate,
        momentum=settings.momentum,
    )
    data = {number: device_data({"partition-id": number}, config) for number in names}
    for number in range(1, settings.rounds + 1):
        weights = {"weights": mean}
        task = Task("dac", TRAIN, number, member.architecture, order.to_mapping(), weights, seed=config.run.seed)
        results = [run_step(STEPS, task, its, f"device-{i:02d}", torch.device("cpu")) for i, its in data.items()]
        total = sum(result.samples for result in results)
        summed = sum(result.samples * result.arrays["weights"].astype(np.float64) for result in results)
        mean = np.asarray(summed / total, dtype=np.float32)
    return mean


def final_weights(folder: RunFolder) -> np.ndarray:
    architecture = Architecture.from_json(folder.architecture_path("cohort-0").read_text())
    return architecture.layout.flatten(folder.load_model("cohort-0"))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_device_costs_its_own_reply_only(
    fault: str, run: Callable[..., Config], run_folder: RunFolder
) -> None:
    corrupt, status, reason = FAULTS[fault]
    config = run(faulty_app(corrupt))
    events = {event["device"]: event for event in run_folder.events("device")}
    assert {name: event["status"] for name, event in events.items()} == {
        "device-00": "trained",
        NAME: status,
        "device-02": "trained",
    }
    assert reason in events[NAME]["reason"]
    assert "\n" not in events[NAME]["reason"]
    (round_event,) = run_folder.events("round")
    assert round_event["sampled"] == ["device-00", NAME, "device-02"]
    assert round_event["trained"] == ["device-00", "device-02"]
    weights = final_weights(run_folder)
    assert np.isfinite(weights).all()
    assert weights.tobytes() == mean_of_the_good(run_folder, config, (0, 2)).tobytes()


def test_without_faults_everyone_counts(run: Callable[..., Config], run_folder: RunFolder) -> None:
    config = run()
    assert final_weights(run_folder).tobytes() == mean_of_the_good(run_folder, config, (0, 1, 2)).tobytes()


def test_a_silent_device_is_late_and_the_round_ends_in_time(run: Callable[..., Config], run_folder: RunFolder) -> None:
    start = time.monotonic()
    config = run(grid_class=MuteGrid, round_timeout=2)
    assert time.monotonic() - start < 60
    events = {event["device"]: event for event in run_folder.events("device")}
    assert events[NAME]["status"] == "late"
    assert events[NAME]["reason"] == TOO_LATE
    assert final_weights(run_folder).tobytes() == mean_of_the_good(run_folder, config, (0, 2)).tobytes()


def test_what_flower_says_of_an_expired_message_is_said_in_our_words(
    run: Callable[..., Config], run_folder: RunFolder
) -> None:
    run(grid_class=ExpiredGrid, round_timeout=2)
    events = {event["device"]: event for event in run_folder.events("device")}
    assert (events[NAME]["status"], events[NAME]["reason"]) == ("late", TOO_LATE)


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_run_in_which_no_device_ever_trained_is_a_failure(
    rounds: int, run: Callable[..., Config], run_folder: RunFolder
) -> None:
    with pytest.raises(FederationError, match=rf"no device trained in any of {rounds} round.*device-00: .*battery"):
        run(faulty_app(raises, culprits=(0, 1, 2)), rounds=rounds)
    assert not run_folder.summary_path.exists()


def test_a_run_without_rounds_is_none(run: Callable[..., Config], run_folder: RunFolder) -> None:
    run(faulty_app(raises, culprits=(0, 1, 2)), rounds=0)
    assert run_folder.read_summary()["rounds"] == 0


def test_replies_count_once_and_by_the_message_they_answer(run: Callable[..., Config], run_folder: RunFolder) -> None:
    config = run(grid_class=StrangerGrid)
    (round_event,) = run_folder.events("round")
    assert round_event["trained"] == ["device-00", NAME, "device-02"]
    assert final_weights(run_folder).tobytes() == mean_of_the_good(run_folder, config, (0, 1, 2)).tobytes()


def test_a_cohort_without_a_reply_keeps_its_weights(run: Callable[..., Config], run_folder: RunFolder) -> None:
    with pytest.raises(FederationError):
        run(faulty_app(raises, culprits=(0, 1, 2)), rounds=2)
    evaluations = run_folder.events("evaluation")
    assert [event["round"] for event in evaluations] == [0, 1, 2]
    assert len({(event["loss"], event["test_accuracy"]) for event in evaluations}) == 1


def test_three_rounds_without_a_reply_end_the_run(run: Callable[..., Config], run_folder: RunFolder) -> None:
    with pytest.raises(FederationError, match=r"3 rounds in a row.*device-00: .*battery"):
        run(faulty_app(raises, culprits=(0, 1, 2)), rounds=10)
    assert [event["round"] for event in run_folder.events("round")] == [1, 2, 3]


def test_late_and_failed_devices_come_back_in_later_rounds(run: Callable[..., Config], run_folder: RunFolder) -> None:
    calls: list[int] = []

    def once(request: Message, reply: Message) -> Message:
        calls.append(1)
        return raises(request, reply) if len(calls) == 1 else reply

    run(faulty_app(once), rounds=2)
    trained = [event["trained"] for event in run_folder.events("round")]
    assert trained == [["device-00", "device-02"], ["device-00", NAME, "device-02"]]


@pytest.mark.parametrize("fault", ["raises", "not a number"])
def test_after_three_bad_rounds_in_a_row_a_device_is_left_out(
    fault: str, run: Callable[..., Config], run_folder: RunFolder
) -> None:
    run(faulty_app(FAULTS[fault][0]), rounds=5)
    sampled = [event["sampled"] for event in run_folder.events("round")]
    assert sampled == [["device-00", NAME, "device-02"]] * 3 + [["device-00", "device-02"]] * 2
    reasons = [event["reason"] for event in run_folder.events("device") if event["device"] == NAME]
    assert [reason.endswith("after 3 such rounds in a row it is left out") for reason in reasons] == [
        False,
        False,
        True,
    ]


def test_a_good_round_clears_the_bad_ones_before_it(run: Callable[..., Config], run_folder: RunFolder) -> None:
    calls: list[int] = []

    def now_and_then(request: Message, reply: Message) -> Message:
        calls.append(1)
        return reply if len(calls) % 3 == 0 else raises(request, reply)

    run(faulty_app(now_and_then), rounds=6)
    statuses = [event["status"] for event in run_folder.events("device") if event["device"] == NAME]
    assert statuses == ["failed", "failed", "trained"] * 2


def test_lateness_neither_counts_nor_clears() -> None:
    state = FederationState()
    assert [state.strike("a", status) for status in ("failed", "late", "rejected", "late")] == [False] * 4
    assert not state.is_left_out("a")
    assert state.strike("a", "failed")
    assert state.is_left_out("a")


def test_a_resumed_run_still_leaves_the_device_out(
    run: Callable[..., Config],
    run_folder: RunFolder,
    run_inline: Callable[..., Any],
    small_config: Callable[..., Config],
) -> None:
    run(faulty_app(raises), rounds=3)
    config = small_config(rounds=4)
    run_inline(lambda grid: federate(grid, config, run_folder, Silent(), True), config, faulty_app(raises))
    assert run_folder.events("round")[-1]["sampled"] == ["device-00", "device-02"]


def test_a_cohort_too_small_for_protection_is_told_of_once(
    run_inline: Callable[..., Any], small_config: Callable[..., Config], run_folder: RunFolder
) -> None:
    config, notes = small_config(rounds=2, devices=2, robust_aggregation="median"), Notes()
    run_inline(lambda grid: federate(grid, config, run_folder, notes, False), config)
    (note,) = notes.lines
    assert "round 1: cohort-0 is averaged without protection: robust aggregation needs the models of 3 devices" in note
    assert [event["protected"] for event in run_folder.events("round")] == [False, False]
    assert final_weights(run_folder).tobytes() == mean_of_the_good(run_folder, config, (0, 1)).tobytes()


def test_a_round_that_loses_its_majority_is_averaged_and_told_of(
    run_inline: Callable[..., Any], small_config: Callable[..., Config], run_folder: RunFolder
) -> None:
    config, notes = small_config(rounds=1, clip_norm=1.0, device_evaluation=False), Notes()
    run_inline(lambda grid: federate(grid, config, run_folder, notes, False), config, faulty_app(raises))
    assert [note.partition(" is ")[0] for note in notes.lines[1:]] == ["round 1: cohort-0"]
    assert final_weights(run_folder).tobytes() == mean_of_the_good(run_folder, config, (0, 2)).tobytes()


def test_rounds_in_which_nobody_could_train_are_made_again_by_a_resumed_run(
    small_config: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    """All devices lose their data after the first round; it comes back, and nothing is lost."""

    def without_data(request: Message, reply: Message) -> Message:
        if Task.decode(request.content, Architecture).round > 1:
            raise ValueError("the data is gone")
        return reply

    config = small_config(rounds=4)
    run_federation(config, tmp_path / "whole")
    with pytest.raises(FederationError, match=r"3 rounds in a row; first: .*the data is gone"):
        run_federation(config, tmp_path / "cut", client_app=faulty_app(without_data, range(3)))
    run_federation(config, tmp_path / "cut", resume=True)
    assert [event["round"] for event in RunFolder(tmp_path / "cut").events("round")] == [1, 2, 3, 4]
    for path in (tmp_path / "whole/models").iterdir():
        assert (tmp_path / "cut/models" / path.name).read_bytes() == path.read_bytes()
