"""What a reply must be to count: every way of being wrong that we know of is refused with a reason."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.arrays import ArraySpec
from common.budget import DeviceBudget
from common.errors import MessageError
from common.handshake import DeviceReport
from common.messages import EvaluateResult, Result, Task
from common.methods.training import NORM_FACTOR, TRAIN, TrainingOrder, weights_spec
from common.models.description import BaseNetwork
from server.admission import SPARE_BYTES, admit, admit_evaluation, one_line, status_of
from server.cohorts import Cohort
from server.devices import Device
from server.steps import Order, Step
from tests.examples import examples

ARCHITECTURE = Architecture.with_kept(BaseNetwork("mobilenet_v2", (3, 8, 8), 4, width=0.25), {})
LAYOUT = ARCHITECTURE.layout
WEIGHTS = LAYOUT.flatten(ARCHITECTURE.build(0).state_dict())
TASK = Task("dac", TRAIN, 5, ARCHITECTURE, TrainingOrder().to_mapping(), {"weights": WEIGHTS})
GOOD = Result("dac", TRAIN, 5, samples=10, loss=0.5, seconds=1.0, peak_rss_bytes=1, arrays={"weights": WEIGHTS})
COHORT = Cohort("cohort-0", ARCHITECTURE, WEIGHTS, 0.5, ["device-00"])
ASKED = Step(
    TRAIN, COHORT, TASK.arrays, {"weights": weights_spec(LAYOUT, WEIGHTS)}, lambda device: Order(TrainingOrder(), 1)
)


def admitted(content: RecordDict | Error, device: Device, step: Step = ASKED) -> Result:
    """The reply to ASKED, a step of dac in round 5."""
    return admit(reply(content), step, "dac", 5, device)


def reply(content: RecordDict | Error) -> Message:
    return Message(content, reply_to=Message(TASK.encode(), 7, "train"))  # type: ignore[call-overload]


def with_weights(weights: np.ndarray) -> Result:
    return replace(GOOD, arrays={"weights": weights})


def changed(position: int, value: float) -> Result:
    weights = WEIGHTS.copy()
    weights[position] = value
    return with_weights(weights)


def position_of(name: str) -> int:
    sizes = [int(np.prod(shape)) for shape in LAYOUT.shapes]
    return sum(sizes[: LAYOUT.names.index(name)])


VARIANCE = next(name for name in LAYOUT.names if name.endswith("running_var"))


@pytest.fixture
def device(make_device: Callable[..., Device]) -> Device:
    return make_device(samples=10, held_out=3)


def test_a_good_reply_is_admitted_as_it_is(device: Device) -> None:
    result = admitted(GOOD.encode(), device)
    assert result.samples == 10
    assert set(result.arrays) == {"weights"}
    assert result.arrays["weights"].tobytes() == WEIGHTS.tobytes()


def test_up_to_the_limits_a_reply_is_admitted(device: Device) -> None:
    assert admitted(replace(GOOD, samples=1).encode(), device).samples == 1
    assert admitted(changed(position_of(VARIANCE), 0.0).encode(), device).round == 5
    assert admitted(changed(0, 900 * np.linalg.norm(WEIGHTS)).encode(), device).round == 5


def test_the_limit_of_the_norm_is_a_thousand_times_what_was_sent_but_not_below_a_thousand(device: Device) -> None:
    assert NORM_FACTOR == 1000.0
    assert weights_spec(LAYOUT, WEIGHTS).largest_norm == pytest.approx(1000 * np.linalg.norm(WEIGHTS), rel=1e-6)
    assert weights_spec(LAYOUT, 0 * WEIGHTS).largest_norm == 1000
    with pytest.raises(MessageError, match=r"weights have norm .*, above the limit of"):
        admitted(changed(0, 1001 * np.linalg.norm(WEIGHTS)).encode(), device)


def test_only_variances_have_a_lowest_value(device: Device) -> None:
    low = weights_spec(LAYOUT, WEIGHTS).low
    assert isinstance(low, np.ndarray)
    assert low.shape == (LAYOUT.size,)
    for name, shape in zip(LAYOUT.names, LAYOUT.shapes, strict=True):
        start, size = position_of(name), int(np.prod(shape))
        expected = 0.0 if name.endswith("running_var") else -np.inf
        assert (low[start : start + size] == expected).all()


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (replace(GOOD, round=4), "round 4, not 5"),
        (replace(GOOD, round=6), "round 6, not 5"),
        (replace(GOOD, method="fedavg"), "^the reply is for step 'train' of 'fedavg', not train$"),
        (replace(GOOD, method="DAC"), "^the reply is for step 'train' of 'DAC', not train$"),
        (replace(GOOD, method=""), "^the reply is for step 'train' of '', not train$"),
        (replace(GOOD, step="evaluate"), "^the reply is for step 'evaluate' of 'dac', not train$"),
        (replace(GOOD, step=""), "^the reply is for step '' of 'dac', not train$"),
        (replace(GOOD, step="x" * 9_000), "^the reply is for step 'x{30,40} of 'dac', not train$"),
        (replace(GOOD, samples=0), "claims 0 samples, but registered 10"),
        (replace(GOOD, samples=-30), "claims -30 samples"),
        (replace(GOOD, samples=11), "claims 11 samples"),
        (replace(GOOD, samples=10**18), "claims 1000000000000000000 samples"),
        (replace(GOOD, loss=float("nan")), "loss must be a finite number"),
        (replace(GOOD, loss=float("inf")), "loss must be a finite number"),
        (replace(GOOD, loss=9e306), "loss must be at most 1e\\+18"),
        (replace(GOOD, seconds=-1.0), "negative"),
        (replace(GOOD, peak_rss_bytes=-1), "negative"),
        (with_weights(WEIGHTS[:-1]), rf"weights must be <f4 of shape \({LAYOUT.size}\), not <f4 of"),
        (
            with_weights(np.append(WEIGHTS, np.float32(0))),
            rf"weights must be <f4 of shape \({LAYOUT.size}\), not <f4 of",
        ),
        (with_weights(WEIGHTS[:0]), rf"weights must be <f4 of shape \({LAYOUT.size}\), not <f4 of \(0,\)"),
        (changed(3, float("nan")), "not finite"),
        (changed(3, float("inf")), "not finite"),
        (changed(3, float("-inf")), "not finite"),
        (changed(3, 1e30), "norm"),
        (changed(3, 3e38), "norm"),
        (
            changed(position_of(VARIANCE), -0.1),
            f"^weights has -0.1 at {position_of(VARIANCE)}, below what is possible$",
        ),
    ],
)
def test_impossible_values_are_refused(result: Result, reason: str, device: Device) -> None:
    with pytest.raises(MessageError, match=reason):
        admitted(result.encode(), device)


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
    content["arrays"] = ArrayRecord({"weights": Array(array)})
    with pytest.raises(MessageError, match=r"weights'? must be|above the limit"):
        admitted(content, device)


@pytest.mark.parametrize("samples", [0.5, float("nan"), float("inf"), [10], 10.0])
def test_a_number_of_samples_is_one_whole_number(samples: object, device: Device) -> None:
    content = GOOD.encode()
    metrics = dict(content["result"].items())  # type: ignore[union-attr]
    content["result"] = MetricRecord({**metrics, "num-examples": samples})  # type: ignore[dict-item]
    with pytest.raises(MessageError, match="num-examples must be a whole number"):
        admitted(content, device)


@pytest.mark.parametrize("missing", ["arrays", "result", "echo"])
def test_a_record_that_is_missing_or_of_another_kind_is_named(missing: str, device: Device) -> None:
    content = GOOD.encode()
    del content[missing]
    with pytest.raises(MessageError, match=missing if missing != "arrays" else "array record"):
        admitted(content, device)
    content[missing] = MetricRecord({"a": 1}) if missing != "result" else ConfigRecord({"a": 1})
    with pytest.raises(MessageError):
        admitted(content, device)


def test_what_nobody_asked_for_changes_nothing(device: Device) -> None:
    content = GOOD.encode()
    content["junk"] = MetricRecord({f"key-{number}": number for number in range(1000)})
    assert admitted(content, device).arrays["weights"].tobytes() == WEIGHTS.tobytes()


def test_an_error_reply_gives_its_reason_in_one_line(device: Device) -> None:
    error = Error(2, "<class 'ValueError'>:<'out of \x1b[31mbattery\n'>")
    with pytest.raises(MessageError, match=r"^ValueError: out of \[31mbattery$"):
        admitted(error, device)


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
        (EvaluateResult(5, 0.5, 0.5, 4), "4 held-out images, but registered 3"),
        (EvaluateResult(5, 0.5, 1.5, 3), "impossible"),
        (EvaluateResult(5, float("nan"), 0.5, 3), "finite"),
    ],
)
def test_impossible_scores_are_refused(score: EvaluateResult, reason: str, device: Device) -> None:
    with pytest.raises(MessageError, match=reason):
        admit_evaluation(reply(score.encode()), 5, device)


def test_a_score_is_admitted(device: Device) -> None:
    score = EvaluateResult(5, 0.25, 0.5, 3)
    assert admit_evaluation(reply(score.encode()), 5, device) == score


# ---- a step that asks for several arrays

LOGITS = np.linspace(-5, 5, 40, dtype=np.float16).reshape(10, 4)
SEEN = (np.arange(10) % 4).astype(np.uint8)
COUNTS = np.array([3, 3, 2, 2], np.int64)
SPECS = {
    "weights": weights_spec(LAYOUT, WEIGHTS),
    "logits": ArraySpec("<f2", (None, 4), low=-100, high=100, largest_norm=500),
    "seen": ArraySpec("|u1", (None,), high=3),
    "counts": ArraySpec("<i8", (4,), low=0, high=10),
}
TEACH = replace(ASKED, name="teach", reply=SPECS)
ANSWER: dict[str, Any] = {"weights": WEIGHTS, "logits": LOGITS, "seen": SEEN, "counts": COUNTS}


def answer(**arrays: Any) -> Result:
    """The sound answer to TEACH with other arrays; None leaves one out."""
    together = {**ANSWER, **arrays}
    return replace(GOOD, step="teach", arrays={n: a for n, a in together.items() if a is not None})


def test_several_arrays_are_admitted_as_they_are(device: Device) -> None:
    result = admitted(answer().encode(), device, TEACH)
    assert {name: array.tobytes() for name, array in result.arrays.items()} == {
        name: array.tobytes() for name, array in ANSWER.items()
    }
    few = admitted(answer(logits=LOGITS[:3], seen=SEEN[:3]).encode(), device, TEACH)
    assert few.arrays["logits"].shape == (3, 4)


def at(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    other = array.copy()
    other[place] = value
    return other


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (answer(more=SEEN), "must carry just these arrays: counts, logits, seen, weights$"),
        (answer(seen=None), "must carry just these arrays: counts, logits, seen, weights$"),
        (answer(logits=LOGITS.astype(np.float32)), r"logits must be <f2 of shape \(rows, 4\), not <f4 of \(10, 4\)"),
        (answer(logits=LOGITS[:, :3]), r"logits must be <f2 of shape \(rows, 4\), not <f2 of \(10, 3\)"),
        (answer(counts=COUNTS[:3]), r"counts must be <i8 of shape \(4\), not <i8 of \(3,\)"),
        (answer(logits=np.tile(LOGITS, (2, 1))), "logits has 20 rows, but the device registered 10 images"),
        (answer(logits=np.vstack([LOGITS, LOGITS[:1]])), "logits has 11 rows, but the device registered 10 images"),
        (answer(logits=LOGITS[:9]), "differ in their number of rows"),
        (answer(logits=at(LOGITS, (2, 1), np.nan)), "^logits are not finite$"),
        (answer(logits=at(LOGITS, (2, 1), np.inf)), "^logits are not finite$"),
        (answer(logits=at(LOGITS, (2, 1), -100.25)), "^logits has -100 at 9, below what is possible$"),
        (answer(logits=at(LOGITS, (2, 1), 101)), "^logits has 101 at 9, above what is possible$"),
        (answer(logits=np.full_like(LOGITS, 99)), "^logits have norm 626, above the limit of 500$"),
        (answer(seen=at(SEEN, 9, 4)), "^seen has 4 at 9, above what is possible$"),
        (answer(counts=at(COUNTS, 0, -1)), "^counts has -1 at 0, below what is possible$"),
        (answer(counts=at(COUNTS, 3, 11)), "^counts has 11 at 3, above what is possible$"),
        (
            answer(weights=at(WEIGHTS, position_of(VARIANCE), -0.5)),
            "^weights has -0.5 at [0-9]+, below what is possible$",
        ),
        (answer(weights=at(WEIGHTS, 3, 1e30)), "^weights have norm 1e[+]30, above the limit of"),
        (replace(answer(), step="train"), "the reply is for step 'train' of 'dac', not teach"),
    ],
)
def test_an_answer_with_one_wrong_array_is_refused_as_a_whole(result: Result, reason: str, device: Device) -> None:
    with pytest.raises(MessageError, match=reason):
        admitted(result.encode(), device, TEACH)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(LOGITS),
        LOGITS.astype(">f2"),
        LOGITS.astype(np.float64),
        LOGITS.astype(np.complex64),
        LOGITS > 0,
        LOGITS.view([("a", "<f2")]),
        np.array([["text"] * 4] * 10),
    ],
)
def test_arrays_of_types_that_do_not_travel_are_refused(array: np.ndarray, device: Device) -> None:
    content = answer().encode()
    content["arrays"]["logits"] = Array(array)  # type: ignore[assignment]
    with pytest.raises(MessageError, match=r"^'logits' (must be one of .* in C order|says )"):
        admitted(content, device, TEACH)


def test_a_reply_may_be_as_large_as_a_row_for_each_registered_image_makes_it() -> None:
    """The step's arrays with ten rows, and 64 KiB for everything else."""
    assert TEACH.largest_reply(10) == 4 * LAYOUT.size + 2 * 4 * 10 + 10 + 8 * 4
    assert ASKED.largest_reply(10) == 4 * LAYOUT.size
    assert SPARE_BYTES == 65_536


def test_rows_are_taken_of_no_device_that_registered_more_than_is_plausible(device: Device) -> None:
    """Ten here, of which a device that registered 2^40 would send as few; an answer without rows says nothing of it."""
    liar = replace(device, report=replace(device.report, samples=2**40))
    assert admit(reply(answer().encode()), TEACH, "dac", 5, device, 10).samples == 10
    with pytest.raises(MessageError, match=r"^it registered 1099511627776 images, but one device may answer for 10"):
        admit(reply(answer().encode()), TEACH, "dac", 5, liar, 10)
    assert admit(reply(GOOD.encode()), ASKED, "dac", 5, liar, 10).samples == 10


@pytest.mark.parametrize(("length", "fits"), [(60_000, True), (70_000, False)])
def test_what_a_reply_takes_beside_its_arrays_is_limited(length: int, fits: bool, device: Device) -> None:
    content = answer().encode()
    content["junk"] = ConfigRecord({"junk": "x" * length})
    if fits:
        assert admitted(content, device, TEACH).samples == 10
        return
    with pytest.raises(MessageError, match=r"^the reply takes \d+ bytes, above the limit of \d+$"):
        admitted(content, device, TEACH)


# ---- generated answers: each breaks one thing that a spec says, whatever else is in it

DEVICE = Device(7, DeviceReport("device-00", "phone", 0, 10, DeviceBudget()))
TYPES = ("<f4", "<f2", "<i4", "<i8", "|u1", "|i1")


@st.composite
def specs(draw: st.DrawFn) -> dict[str, ArraySpec]:
    """Some arrays, of which the last always has a row per image and the first always has limits."""
    drawn = {}
    for number in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
        drawn[f"a{number}"] = ArraySpec(draw(st.sampled_from(TYPES)), shape, low=-1, high=3, largest_norm=40)
    drawn["rows"] = ArraySpec(draw(st.sampled_from(TYPES)), (None, 2), low=-1, high=3, largest_norm=40)
    drawn["more"] = ArraySpec(draw(st.sampled_from(TYPES)), (None,), low=-1, high=3, largest_norm=40)
    return drawn


def sound(draw: st.DrawFn, spec: ArraySpec, rows: int) -> np.ndarray:
    shape = tuple(rows if one is None else one for one in spec.shape)
    values = draw(st.lists(st.integers(0, 3), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    return np.array(values, dtype=spec.dtype).reshape(shape)


def other_type(draw: st.DrawFn, spec: ArraySpec, values: np.ndarray) -> np.ndarray:
    others = [*TYPES, ">f4", ">f2", ">i8", "<f8", "<u2", "<i2", "?", "<c8", "<U4"]
    return values.astype(draw(st.sampled_from([one for one in others if one != spec.dtype])))


def other_shape(draw: st.DrawFn, spec: ArraySpec, values: np.ndarray) -> np.ndarray:
    ways = [values[None], values[..., None], values.reshape(-1)[:0].reshape(0, 7)]
    if values.ndim == 2:
        ways += [values[:, :-1].copy(), np.hstack([values, values[:, :1]])]
    if spec.shape[0] is not None:
        ways += [values[:-1], np.concatenate([values, values[:1]])]
    return draw(st.sampled_from(ways))


def out_of_range(draw: st.DrawFn, spec: ArraySpec, values: np.ndarray) -> np.ndarray:
    bad: list[float] = [4, 100]
    if values.dtype.kind != "u":
        bad += [-2, -100]
    if values.dtype.kind == "f":
        bad += [float("nan"), float("inf"), float("-inf"), 3.25, -1.25]
    return at(values, np.unravel_index(draw(st.integers(0, values.size - 1)), values.shape), draw(st.sampled_from(bad)))


BREAK = {"type": other_type, "shape": other_shape, "range": out_of_range}
OTHER_ECHOES: list[dict[str, Any]] = [
    {"method": "fedavg"},
    {"step": "evaluate"},
    {"round": 4},
    {"samples": 0},
    {"samples": 11},
    {"seconds": -0.5},
    {"peak_rss_bytes": -1},
]


@st.composite
def broken(draw: st.DrawFn) -> tuple[dict[str, ArraySpec], RecordDict, str]:
    """Specs, an answer that breaks them in one way, and which way that is; nothing is broken for ""."""
    asked, rows = draw(specs()), draw(st.integers(1, 10))
    arrays = {name: sound(draw, spec, rows) for name, spec in asked.items()}
    victim = draw(st.sampled_from(sorted(arrays)))
    ways = ["", "extra", "missing", "rows", "uneven", "bytes", "fortran", "objects", "echo", *BREAK]
    how = draw(st.sampled_from(ways))
    result = Result("dac", TRAIN, 5, 10, 0.5, 1.0, 1, {})
    if how == "echo":
        result = replace(result, **draw(st.sampled_from(OTHER_ECHOES)))
    if how in BREAK:
        arrays[victim] = BREAK[how](draw, asked[victim], arrays[victim])
    if how == "missing":
        del arrays[victim]
    if how == "extra":
        arrays[draw(st.text(max_size=9).filter(lambda name: name not in arrays))] = arrays[victim]
    if how == "rows":
        for name in ("rows", "more"):
            arrays[name] = np.resize(arrays[name], (11, *arrays[name].shape[1:]))
    if how == "uneven":
        arrays["more"] = arrays["more"][:-1]
    content = result.encode()
    record = {name: Array(array) for name, array in arrays.items()}
    if how == "fortran":
        record["rows"] = Array(np.asfortranarray(np.resize(arrays["rows"], (rows + 1 if rows < 10 else rows, 2))))
    if how == "objects":
        objects = np.array([{}] * 2, dtype=object)
        record[victim] = Array("object", (2,), "numpy.ndarray", pickled(objects))
    if how == "bytes":
        old = record[victim]
        cut = draw(st.integers(1, len(old.data)))
        data = draw(st.sampled_from([old.data[:-cut], old.data + b"\0" * cut]))
        record[victim] = Array(old.dtype, old.shape, old.stype, data)
    content["arrays"] = ArrayRecord(record)
    return asked, content, how


def pickled(array: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@given(broken())
@settings(max_examples=examples(400), deadline=None, suppress_health_check=list(HealthCheck))
def test_an_answer_is_admitted_if_and_only_if_it_breaks_nothing(
    one: tuple[dict[str, ArraySpec], RecordDict, str],
) -> None:
    asked, content, how = one
    step = replace(ASKED, reply=asked)
    if not how:
        result = admit(reply(content), step, "dac", 5, DEVICE)
        for name, spec in asked.items():
            assert result.arrays[name].dtype.str == spec.dtype
            assert np.array_equal(result.arrays[name], content["arrays"][name].numpy())  # type: ignore[union-attr]
        return
    with pytest.raises(MessageError) as caught:
        admit(reply(content), step, "dac", 5, DEVICE)
    assert len(str(caught.value)) < 400


numbers = st.one_of(st.floats(width=16), st.integers(-200, 200))


@given(st.sampled_from(TYPES), st.lists(numbers, min_size=1, max_size=8), st.integers(-5, 5), st.integers(-5, 5))
@settings(max_examples=examples(300), deadline=None, suppress_health_check=list(HealthCheck))
def test_no_value_out_of_range_is_ever_admitted(dtype: str, drawn: list[Any], low: int, high: int) -> None:
    with np.errstate(all="ignore"):
        values = np.array(drawn, np.float64).astype(dtype)
    spec = ArraySpec(dtype, (None,), low=low, high=high, largest_norm=9)
    content = replace(GOOD, arrays={"a": values}).encode()
    fits = bool(np.isfinite(values.astype(np.float64)).all()) and float(np.linalg.norm(values.astype(np.float64))) <= 9
    fits = fits and all(low <= float(value) <= high for value in values)
    try:
        result = admit(reply(content), replace(ASKED, reply={"a": spec}), "dac", 5, DEVICE)
    except MessageError:
        assert not fits
        return
    assert fits
    assert result.arrays["a"].tobytes() == values.tobytes()
