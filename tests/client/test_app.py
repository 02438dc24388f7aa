"""The ClientApp: real messages in, replies out; what a person can act on comes back as one line."""

import importlib
import logging
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from common.architecture import Architecture
from common.arrays import ArraySpec
from common.budget import DeviceBudget
from common.config import Config
from common.handshake import HANDSHAKE, DeviceReport, Hello
from common.messages import EvaluateResult, Result, Task
from common.methods.contract import Contract
from common.methods.evaluation import EVALUATE, EvaluationOrder
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork

ARCHITECTURE = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10))
WEIGHTS = ARCHITECTURE.layout.flatten(ARCHITECTURE.build(0).state_dict())
ORDER = TrainingOrder(batch_size=16).to_mapping()
TASK = Task("dac", TRAIN, 1, ARCHITECTURE, ORDER, {"weights": WEIGHTS})
EVALUATION = replace(TASK, step=EVALUATE, order=EvaluationOrder(batch_size=16).to_mapping())
SPECS = {"weights": ArraySpec("<f4", (ARCHITECTURE.layout.size,))}


class Elsewhere(Contract):
    """A method whose device half is on another machine."""

    name = "elsewhere"
    reads = frozenset()
    server = "nowhere:Nothing"
    device = "no.such.module:STEPS"


class Stepless(Elsewhere):
    """A method whose device half is no mapping."""

    name = "stepless"
    device = "common.message_fields:SCHEMA"


@pytest.fixture(autouse=True)
def task_identity() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def ask(content: RecordDict, kind: str, node: dict[str, Any] | None = None, **settings: Any) -> Message:
    changes = {name.replace("_", "-"): value for name, value in settings.items()}
    run_config = {**Config.from_mapping({"devices": 2, "accelerator": "cpu"}).to_mapping(), **changes}
    node_config = {"partition-id": 0} if node is None else node
    return app(Message(content, 5, kind), Context(1, 5, node_config, RecordDict(), run_config))


def test_the_handshake_reports_the_device() -> None:
    node = {"partition-id": 1, "device-name": "shed", "max-macs": "2M"}
    report = DeviceReport.decode(ask(Hello.mine().encode(), HANDSHAKE, node).content)
    assert (report.name, report.partition, report.budget) == ("shed", 1, DeviceBudget(macs=2_000_000))
    assert report.samples > 100


def test_other_code_is_refused() -> None:
    hello = replace(Hello.mine(), fingerprint="0123456789abcdef")
    reply = ask(hello.encode(), HANDSHAKE)
    assert "install the same FedDAC on both" in reply.error.reason


def result_of(reply: Message, rows: int) -> Result:
    return Result.decode(reply.content, SPECS, rows)


def test_training_gives_new_weights_for_as_many_samples_as_were_reported() -> None:
    report = DeviceReport.decode(ask(Hello.mine().encode(), HANDSHAKE).content)
    result = result_of(ask(TASK.encode(), "train"), report.samples)
    assert result.samples == report.samples
    assert result.arrays["weights"].tobytes() != WEIGHTS.tobytes()
    assert (result.method, result.step, result.round) == ("dac", "train", 1)


def test_samples_are_those_trained_on_when_some_are_held_out() -> None:
    report = DeviceReport.decode(ask(Hello.mine().encode(), HANDSHAKE).content)
    result = result_of(ask(TASK.encode(), "train"), report.samples)
    score = EvaluateResult.decode(ask(EVALUATION.encode(), "evaluate").content)
    whole = DeviceReport.decode(ask(Hello.mine().encode(), HANDSHAKE, device_evaluation=False).content)
    assert result.samples == report.samples
    assert report.held_out == score.samples > 0
    assert report.samples + score.samples == whole.samples
    assert whole.held_out == 0


@pytest.mark.parametrize("kind", [HANDSHAKE, "train", "evaluate"])
def test_a_message_without_its_records_is_an_error_reply_of_one_line(kind: str) -> None:
    reply = ask(RecordDict(), kind)
    assert reply.has_error()
    assert "record" in reply.error.reason
    assert "\n" not in reply.error.reason


def test_a_setting_that_cannot_be_is_an_error_reply() -> None:
    reply = ask(TASK.encode(), "train", learning_rate="fast")
    assert "learning-rate must be a number" in reply.error.reason


def refused(reply: Message) -> str:
    """The reason of an error reply, which is one line of a length that can be read."""
    assert reply.has_error()
    assert "\n" not in reply.error.reason
    assert len(reply.error.reason) < 300
    return str(reply.error.reason)


def test_a_task_without_epochs_is_an_error_reply() -> None:
    reply = ask(replace(TASK, order={**ORDER, "epochs": 0}).encode(), "train")
    assert refused(reply) == "epochs must be at least 1, not 0"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch-size": 0}, "batch-size must be at least 1, not 0"),
        ({"batch-size": [1, 2]}, "the order's 'batch-size' is no single value"),
        ({"batch-size": b"1"}, "the order's 'batch-size' is no single value"),
        ({"learning-rate": float("nan")}, "learning-rate must be a finite number, not nan"),
        ({"masked-loss": "all"}, "masked-loss must be one of none, exclude, zero, not 'all'"),
        ({"masked-loss": "two\nlines"}, r"masked-loss must be one of none, exclude, zero, not 'two\nlines'"),
        ({"batchsize": 1}, "unknown setting 'batchsize': did you mean 'batch-size'?"),
    ],
)
def test_a_bad_order_is_refused_in_one_line(change: dict[str, Any], reason: str) -> None:
    assert refused(ask(replace(TASK, order={**ORDER, **change}).encode(), "train")) == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch-size": 0}, "batch-size must be at least 1, not 0"),
        ({"batch-size": [1, 2]}, "the order's 'batch-size' is no single value"),
        ({"epochs": 1}, "unknown setting 'epochs': known keys are batch-size"),
    ],
)
def test_a_bad_order_to_evaluate_is_refused_in_one_line(change: dict[str, Any], reason: str) -> None:
    content = replace(EVALUATION, order={**EVALUATION.order, **change}).encode()
    assert refused(ask(content, "evaluate", device_evaluation=True)) == reason


def test_a_step_that_the_method_does_not_have_is_refused() -> None:
    reply = ask(replace(TASK, step="teach").encode(), "train")
    assert refused(reply) == "method dac has no step 'teach' on devices"
    assert "has no step" in refused(ask(replace(TASK, step="x\n" * 10_000).encode(), "train"))


def test_a_task_without_weights_is_refused() -> None:
    assert refused(ask(replace(TASK, arrays={}).encode(), "train")) == "step 'train' came without weights"
    reply = ask(replace(EVALUATION, arrays={}).encode(), "evaluate", device_evaluation=True)
    assert refused(reply) == "step 'evaluate' came without weights"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is imported by name."""
    names: list[str] = []
    original = importlib.import_module

    def note(name: str, package: str | None = None) -> Any:
        names.append(name)
        return original(name, package)

    monkeypatch.setattr(importlib, "import_module", note)
    return names


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize("method", ["fedavg", "DAC", "", "this:s", "antigravity:fly", "client.methods.fedavg:STEPS"])
def test_a_task_of_another_method_is_refused_and_nothing_it_names_is_imported(
    method: str, kind: str, imported: list[str]
) -> None:
    task = TASK if kind == "train" else EVALUATION
    reply = ask(replace(task, method=method).encode(), kind, device_evaluation=True)
    assert refused(reply) == f"the run is of method dac, the message of {method!r}"
    assert set(imported) <= {"common.architecture"}


def test_a_method_of_the_same_steps_trains_only_in_its_own_run() -> None:
    reply = ask(TASK.encode(), "train", method="fedavg")
    assert refused(reply) == "the run is of method fedavg, the message of 'dac'"
    result = result_of(ask(replace(TASK, method="fedavg").encode(), "train", method="fedavg"), 10_000)
    assert result.method == "fedavg"


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        ("Elsewhere", "the device half of method elsewhere no.such.module:STEPS cannot be imported here: No module"),
        ("Stepless", "common.message_fields:SCHEMA must be a mapping from names to steps, not int"),
        ("Nowhere", f"method {__name__}:Nowhere cannot be imported here: "),
    ],
)
def test_a_device_half_that_is_not_there_is_named(contract: str, reason: str) -> None:
    reply = ask(replace(TASK, method=contract.lower()).encode(), "train", method=f"{__name__}:{contract}")
    assert refused(reply).startswith(reason)


def test_a_device_tells_its_owner_what_it_tells_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "flwr"):
        logging.getLogger("flwr").propagate = True
        reply = ask(RecordDict(), "train")
    assert [record.getMessage() for record in caplog.records] == [f"MessageError: {reply.error.reason}"]


def test_a_network_is_built_only_if_the_devices_own_configuration_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends a task cannot have a module of their choice imported."""
    imported: list[str] = []
    monkeypatch.setattr("common.models.networks._allowed", set())
    monkeypatch.setattr("common.models.networks.import_module", imported.append)
    text = ARCHITECTURE.to_json().replace('"mlp"', '"antigravity:fly"')
    content = TASK.encode()
    for record in content.config_records.values():
        if "network" in record:
            record["network"] = text
    for node in ({"partition-id": 0}, {"partition-id": 0, "model": "mlp"}):
        reply = ask(content, "train", node)
        assert "unknown base network 'antigravity:fly'" in reply.error.reason
    # a device whose owner pinned its network does not take the run's word for another either
    reply = ask(content, "train", {"partition-id": 0, "model": "mlp"}, model="antigravity:fly")
    assert "unknown base network 'antigravity:fly'" in reply.error.reason
    assert imported == []
    ask(content, "train", {"partition-id": 0, "model": "antigravity:fly"})
    assert imported == ["antigravity"]
