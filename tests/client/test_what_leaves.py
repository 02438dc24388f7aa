"""What leaves a device, field by field: no more than the first table of docs/threat-model.md says."""

from flwr.app import RecordDict

from common.handshake import HANDSHAKE, Hello
from tests.client.test_app import EVALUATION, TASK, ask, task_identity

__all__ = ["task_identity"]

BUDGET = {
    *("macs", "params", "peak-memory-bytes", "training-memory-bytes", "training-batch-size", "training-kept"),
    *("latency-ms", "latency-shares"),
}


def fields(content: RecordDict) -> dict[str, set[str]]:
    """The keys of every record of a message."""
    return {name: set(record) for name, record in content.items()}


def test_of_the_handshake_name_profile_partition_budget_and_numbers_of_images() -> None:
    content = ask(Hello.mine().encode(), HANDSHAKE).content
    assert fields(content) == {"report": {"schema", "name", "profile", "partition", "samples", "held-out", *BUDGET}}


def test_of_training_the_model_and_four_numbers() -> None:
    content = ask(TASK.encode(), "train").content
    echo = {"schema", "method", "step", "round"}
    figures = {"num-examples", "loss", "seconds", "peak-rss-bytes"}
    assert fields(content) == {"arrays": {"weights"}, "result": figures, "echo": echo}


def test_of_held_out_images_accuracy_loss_and_their_number() -> None:
    content = ask(EVALUATION.encode(), "evaluate").content
    assert fields(content) == {"result": {"num-examples", "accuracy", "loss"}, "echo": {"schema", "round"}}


def test_without_device_evaluation_nothing_is_held_out_and_nothing_said_of_it() -> None:
    reply = ask(EVALUATION.encode(), "evaluate", device_evaluation=False)
    assert reply.error.reason == "this device holds no images out to evaluate on"
