"""What a reply must be to count: every way of being wrong that we know of is refused with a reason."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from common.architecture import Architecture
from common.errors import MessageError
from common.messages import EvaluateResult, Task, TrainResult
from common.models.description import BaseNetwork
from server.admission import admit, admit_evaluation, one_line, status_of
from server.devices import Device

ARCHITECTURE = Architecture.with_kept(BaseNetwork("mobilenet_v2", (3, 8, 8), 4, width=0.25), {})
LAYOUT = ARCHITECTURE.layout
WEIGHTS = LAYOUT.flatten(ARCHITECTURE.build(0).state_dict())
TASK = Task(5, ARCHITECTURE, WEIGHTS)
GOOD = TrainResult(5, LAYOUT.hash, WEIGHTS, samples=10, loss=0.5, seconds=1.0, peak_rss_bytes=1)


def reply(content: RecordDict | Error) -> Message:
    return Message(content, reply_to=Message(TASK.encode(), 7, "train"))  # type: ignore[call-overload]


def changed(position: int, value: float) -> TrainResult:
    weights = WEIGHTS.copy()
    weights[position] = value
    return replace(GOOD, weights=weights)


def position_of(name: str) -> int:
    sizes = [int(np.prod(shape)) for shape in LAYOUT.shapes]
    return sum(sizes[: LAYOUT.names.index(name)])


VARIANCE = next(name for name in LAYOUT.names if name.endswith("running_var"))


@pytest.fixture
def device(make_device: Callable[..., Device]) -> Device:
    return make_device(samples=10)


def test_a_good_reply_is_admitted_as_it_is(device: Device) -> None:
    result = admit(reply(GOOD.encode()), TASK, device)
    assert result.samples == 10
    assert result.weights.tobytes() == WEIGHTS.tobytes()


def test_up_to_the_limits_a_reply_is_admitted(device: Device) -> None:
    assert admit(reply(replace(GOOD, samples=1).encode()), TASK, device).samples == 1
    assert admit(reply(changed(position_of(VARIANCE), 0.0).encode()), TASK, device).round == 5
    assert admit(reply(changed(0, 900 * np.linalg.norm(WEIGHTS)).encode()), TASK, device).round == 5


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (replace(GOOD, round=4), "round 4, not 5"),
        (replace(GOOD, round=6), "round 6, not 5"),
        (replace(GOOD, layout_hash="0" * 64), "another architecture"),
        (replace(GOOD, samples=0), "claims 0 samples, but registered 10"),
        (replace(GOOD, samples=-30), "claims -30 samples"),
        (replace(GOOD, samples=11), "claims 11 samples"),
        (replace(GOOD, samples=10**18), "claims 1000000000000000000 samples"),
        (replace(GOOD, loss=float("nan")), "loss must be a finite number"),
        (replace(GOOD, loss=float("inf")), "loss must be a finite number"),
        (replace(GOOD, seconds=-1.0), "negative"),
        (replace(GOOD, weights=WEIGHTS[:-1]), "weights must be float32 of shape"),
        (replace(GOOD, weights=np.append(WEIGHTS, np.float32(0))), "weights must be float32 of shape"),
        (replace(GOOD, weights=WEIGHTS[:0]), "weights must be float32 of shape"),
        (changed(3, float("nan")), "not finite"),
        (changed(3, float("inf")), "not finite"),
        (changed(3, float("-inf")), "not finite"),
        (changed(3, 1e30), "norm"),
        (changed(3, 3e38), "norm"),
        (changed(position_of(VARIANCE), -0.1), "negative variance"),
    ],
)
def test_impossible_values_are_refused(result: TrainResult, reason: str, device: Device) -> None:
    with pytest.raises(MessageError, match=reason):
        admit(reply(result.encode()), TASK, device)


@pytest.mark.parametrize(
    "array",
    [
        WEIGHTS.astype(np.float64),
        WEIGHTS.astype(np.float16),
        WEIGHTS.astype(np.int32),
        WEIGHTS.astype(np.complex64),
        WEIGHTS.astype(">f4"),
        WEIGHTS.reshape(1, -1),
        np.zeros((), np.float32),
        np.array(["text"]),
    ],
)
def test_other_types_and_shapes_are_refused(array: np.ndarray, device: Device) -> None:
    content = GOOD.encode()
    content["weights"] = ArrayRecord({"weights": Array(array)})
    with pytest.raises(MessageError, match=r"weights must be|above the limit"):
        admit(reply(content), TASK, device)


@pytest.mark.parametrize("samples", [0.5, float("nan"), float("inf"), [10], 10.0])
def test_a_number_of_samples_is_one_whole_number(samples: object, device: Device) -> None:
    content = GOOD.encode()
    metrics = dict(content["result"].items())  # type: ignore[union-attr]
    content["result"] = MetricRecord({**metrics, "num-examples": samples})  # type: ignore[dict-item]
    with pytest.raises(MessageError, match="num-examples must be a whole number"):
        admit(reply(content), TASK, device)


@pytest.mark.parametrize("missing", ["weights", "result", "echo"])
def test_a_record_that_is_missing_or_of_another_kind_is_named(missing: str, device: Device) -> None:
    content = GOOD.encode()
    del content[missing]
    with pytest.raises(MessageError, match=missing if missing != "weights" else "array record"):
        admit(reply(content), TASK, device)
    content[missing] = MetricRecord({"a": 1}) if missing != "result" else ConfigRecord({"a": 1})
    with pytest.raises(MessageError):
        admit(reply(content), TASK, device)


def test_what_nobody_asked_for_changes_nothing(device: Device) -> None:
    content = GOOD.encode()
    content["junk"] = MetricRecord({f"key-{number}": number for number in range(1000)})
    assert admit(reply(content), TASK, device).weights.tobytes() == WEIGHTS.tobytes()


def test_an_error_reply_gives_its_reason_in_one_line(device: Device) -> None:
    error = Error(2, "<class 'ValueError'>:<'out of \x1b[31mbattery\n'>")
    with pytest.raises(MessageError, match=r"^ValueError: out of \[31mbattery$"):
        admit(reply(error), TASK, device)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("<class 'common.errors.MessageError'>:<'bad weights'>", "MessageError: bad weights"),
        ("Traceback (most recent call last):\n  File x\nValueError: gone\n\n", "ValueError: gone"),
        ("<class 'ray.Error'>:<'Traceback:\n  File x\nKeyError: 1'>", "KeyError: 1"),
        ("plain", "plain"),
        ("\u202eevil\u0000", "evil"),
        ("", "the device gave no reason"),
        (None, "the device gave no reason"),
        ("x" * 10_000, "x" * 200),
    ],
)
def test_reasons_are_reduced_to_one_safe_line(text: str | None, line: str) -> None:
    assert one_line(text) == line


def test_a_reply_that_is_not_admitted_is_late_failed_or_rejected() -> None:
    assert [status_of(reply(Error(code, ""))) for code in (0, 2, 3, 4, 8)] == [
        "failed",
        "failed",
        "late",
        "late",
        "failed",
    ]
    assert status_of(reply(GOOD.encode())) == "rejected"


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (EvaluateResult(4, 0.5, 0.5, 3), "round 4, not 5"),
        (EvaluateResult(5, 0.5, 0.5, 11), "11 held-out samples"),
        (EvaluateResult(5, 0.5, 1.5, 3), "impossible"),
        (EvaluateResult(5, float("nan"), 0.5, 3), "finite"),
    ],
)
def test_impossible_scores_are_refused(score: EvaluateResult, reason: str, device: Device) -> None:
    with pytest.raises(MessageError, match=reason):
        admit_evaluation(reply(score.encode()), TASK, device)


def test_a_score_is_admitted(device: Device) -> None:
    score = EvaluateResult(5, 0.25, 0.5, 3)
    assert admit_evaluation(reply(score.encode()), TASK, device) == score
