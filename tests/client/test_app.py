"""The ClientApp: real messages in, replies out; what a person can act on comes back as one line."""

import logging
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.messages import HANDSHAKE, DeviceReport, EvaluateResult, Hello, Task, TrainResult
from common.models.description import BaseNetwork

ARCHITECTURE = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10))
WEIGHTS = ARCHITECTURE.layout.flatten(ARCHITECTURE.build(0).state_dict())
TASK = Task(1, ARCHITECTURE, WEIGHTS, batch_size=16)


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


def test_training_gives_new_weights_for_as_many_samples_as_were_reported() -> None:
    report = DeviceReport.decode(ask(Hello.mine().encode(), HANDSHAKE).content)
    result = TrainResult.decode(ask(TASK.encode(), "train").content, ARCHITECTURE)
    assert result.samples == report.samples
    assert result.weights.tobytes() != WEIGHTS.tobytes()


def test_samples_are_those_trained_on_when_some_are_held_out() -> None:
    report = DeviceReport.decode(ask(Hello.mine().encode(), HANDSHAKE, device_evaluation=True).content)
    result = TrainResult.decode(ask(TASK.encode(), "train", device_evaluation=True).content, ARCHITECTURE)
    score = EvaluateResult.decode(ask(TASK.encode(), "evaluate", device_evaluation=True).content)
    whole = DeviceReport.decode(ask(Hello.mine().encode(), HANDSHAKE).content)
    assert result.samples == report.samples
    assert report.samples + score.samples == whole.samples


@pytest.mark.parametrize("kind", [HANDSHAKE, "train", "evaluate"])
def test_a_message_without_its_records_is_an_error_reply_of_one_line(kind: str) -> None:
    reply = ask(RecordDict(), kind)
    assert reply.has_error()
    assert "record" in reply.error.reason
    assert "\n" not in reply.error.reason


def test_a_setting_that_cannot_be_is_an_error_reply() -> None:
    reply = ask(TASK.encode(), "train", learning_rate="fast")
    assert "learning-rate must be a number" in reply.error.reason


def test_a_task_without_epochs_is_an_error_reply() -> None:
    reply = ask(replace(TASK, epochs=0).encode(), "train")
    assert "cannot train 0 epochs" in reply.error.reason


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
        if "architecture" in record:
            record["architecture"] = text
    for node in ({"partition-id": 0}, {"partition-id": 0, "model": "mlp"}):
        reply = ask(content, "train", node)
        assert "unknown base network 'antigravity:fly'" in reply.error.reason
    # a device whose owner pinned its network does not take the run's word for another either
    reply = ask(content, "train", {"partition-id": 0, "model": "mlp"}, model="antigravity:fly")
    assert "unknown base network 'antigravity:fly'" in reply.error.reason
    assert imported == []
    ask(content, "train", {"partition-id": 0, "model": "antigravity:fly"})
    assert imported == ["antigravity"]
