"""The wire schema: what goes in comes out through Flower's own serialisation, and whatever else comes is refused."""

import dataclasses
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.arrays import DTYPES, ArraySpec, Vector
from common.errors import ConfigurationError, MessageError
from common.handshake import DeviceReport, Hello
from common.message_arrays import content_bytes, encode_arrays
from common.messages import EvaluateResult, Result, Task
from common.methods.evaluation import EvaluationOrder
from common.methods.fedprox import ProximalOrder
from common.methods.heterofl import ScaledOrder
from common.methods.training import TrainingOrder
from common.models.description import BaseNetwork
from common.settings import Settings
from tests.common.wire import EVERY_BOUND, HELLO, REPORT, over_the_wire, with_field
from tests.examples import examples

ARCHITECTURE = Architecture.with_kept(BaseNetwork("mlp", (1, 4, 4), 3), {"hidden": (0, 3, 7)})
LAYOUT = ARCHITECTURE.layout
VALUES: Vector = np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)

ORDER = ScaledOrder(
    epochs=2,
    batch_size=16,
    learning_rate=0.05,
    momentum=0.5,
    weight_decay=1e-4,
    max_gradient_norm=0.75,
    masked_loss="exclude",
    activation_scale=0.5,
    frozen_norms=True,
)
OTHER_ARRAYS: dict[str, Any] = {
    "logits": np.linspace(-9, 9, 12, dtype=np.float16).reshape(4, 3),
    "labels": np.array([0, 2, 1, 255], np.uint8),
    "signs": np.array([[-128, 127]], np.int8),
    "counts": np.array([-(2**31), 7], np.int32),
    "positions": np.array([[[-(2**63)]], [[2**63 - 1]]], np.int64),
    "none": np.zeros((0, 5), np.float32),
}
TASK = Task(
    method="heterofl",
    step="train",
    round=4,
    network=ARCHITECTURE,
    order=ORDER.to_mapping(),
    arrays={"weights": VALUES, **OTHER_ARRAYS},
    seed=2**62,
    deadline_seconds=30.5,
    class_names=("cats", "dogs", "owls"),
)
PLAIN_TASK = dataclasses.replace(TASK, arrays={"weights": VALUES})
SPEC = ArraySpec("<f4", (LAYOUT.size,))
SPECS = {"weights": SPEC, "logits": ArraySpec("<f2", (None, 3)), "labels": ArraySpec("|u1", (None,))}
ROWS = 4
"""What the device registered, in the tests of answers with a row per image."""

TRAINED = Result(
    method="heterofl",
    step="train",
    round=4,
    samples=120,
    loss=1.25,
    seconds=3.5,
    peak_rss_bytes=2**33,
    arrays={"weights": VALUES, "logits": OTHER_ARRAYS["logits"], "labels": OTHER_ARRAYS["labels"]},
)
SCORE = EvaluateResult(round=4, loss=0.5, accuracy=0.75, samples=40)

Decode = Callable[[RecordDict], Any]
DECODE: dict[type, Decode] = {
    Hello: Hello.decode,
    DeviceReport: DeviceReport.decode,
    Task: lambda content: Task.decode(content, Architecture),
    Result: lambda content: Result.decode(content, SPECS, ROWS),
    EvaluateResult: EvaluateResult.decode,
}
MESSAGES: list[Any] = [HELLO, REPORT, EVERY_BOUND, TASK, TRAINED, SCORE]
NAMES = [type(message).__name__ for message in MESSAGES]


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_every_message_survives_the_wire(message: Any) -> None:
    again = DECODE[type(message)](over_the_wire(message.encode()))
    for one in dataclasses.fields(message):
        sent, received = getattr(message, one.name), getattr(again, one.name)
        assert type(received) is type(sent)
        if one.name == "arrays":
            assert set(received) == set(sent)
            assert all(received[name].dtype == sent[name].dtype for name in sent)
            assert all(received[name].shape == sent[name].shape for name in sent)
            assert all(received[name].tobytes() == sent[name].tobytes() for name in sent)
        else:
            assert received == sent


def decoded(task: Task) -> Task:
    return Task.decode(over_the_wire(task.encode()), Architecture)


def test_decoded_weights_are_exact_and_can_be_written_to() -> None:
    special = VALUES.copy()
    special[:5] = [math.nan, math.inf, -math.inf, -0.0, 1e-45]  # whether an answer is sane is the server's admission
    received = decoded(dataclasses.replace(TASK, arrays={"weights": special})).weights
    assert received.tobytes() == special.tobytes()
    received += 1


@pytest.mark.parametrize("other", [VALUES.astype(">f4"), VALUES.repeat(2)[::2]])
def test_weights_are_sent_as_little_endian_float32(other: Any) -> None:
    received = decoded(dataclasses.replace(TASK, arrays={"weights": other})).weights
    assert received.dtype == np.dtype("<f4")
    assert np.array_equal(received, VALUES)


@pytest.mark.parametrize("dtype", [">f2", ">i4", ">i8", "|u1", "|i1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_sent_little_endian_and_row_by_row(dtype: str, order: Any) -> None:
    sent = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order=order)
    received = decoded(dataclasses.replace(TASK, arrays={"weights": VALUES, "a": sent})).arrays["a"]
    assert received.dtype.str in DTYPES
    assert received.flags.c_contiguous
    assert received.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("dtype", [np.float64, np.uint16, np.int16, np.bool_, np.complex64, object, "U3"])
def test_arrays_of_other_types_are_never_sent(dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"^a has the type .* travel are <f4, <f2, <i4, <i8, \|u1, \|i1$"):
        encode_arrays({"a": VALUES[:3].astype(dtype)})


def test_arrays_encoded_before_are_shared_by_messages() -> None:
    shared = encode_arrays(TASK.arrays)
    messages = (TASK, dataclasses.replace(TASK, round=5))
    first, second = (message.encode(shared).array_records["arrays"] for message in messages)
    assert all(first[name].data is second[name].data is array.data for name, array in shared.items())
    assert over_the_wire(RecordDict({"arrays": first}))["arrays"] == over_the_wire(TASK.encode())["arrays"]


def test_a_step_may_need_no_weights_but_says_so_when_it_does() -> None:
    task = decoded(dataclasses.replace(TASK, arrays=OTHER_ARRAYS))
    assert set(task.arrays) == set(OTHER_ARRAYS)
    with pytest.raises(MessageError, match=r"^step 'train' came without weights$"):
        _ = task.weights


# ---- what a message weighs


def test_content_bytes_counts_four_bytes_per_weight() -> None:
    extra = content_bytes(PLAIN_TASK.encode()) - 4 * LAYOUT.size
    assert 0 < extra < 1_000
    assert content_bytes(REPORT.encode()) < 350


def test_content_bytes_counts_names_values_and_data() -> None:
    """Texts and bytes count by their length, numbers and truth values eight, lists what is in them.

    An array counts its name, its data, the text of its type, and eight for each axis.
    """
    values: dict[str, Any] = {"n": 1, "x": 0.5, "yes": True, "text": "abc", "raw": b"12345", "many": ["ab", "c"]}
    content = RecordDict(
        {
            "ab": ConfigRecord(values),
            "m": MetricRecord({"k": 2, "list": [1, 2, 3]}),
            "arrays": ArrayRecord({"a": Array(np.zeros(3, np.float32)), "bc": Array(np.zeros(5, np.uint8))}),
        }
    )
    config = (1 + 8) + (1 + 8) + (3 + 8) + (4 + 3) + (3 + 5) + (4 + 3)
    metrics = (1 + 8) + (4 + 24)
    data = len(npy(np.zeros(3, np.float32))) + len(npy(np.zeros(5, np.uint8)))
    assert content_bytes(content) == (2 + config) + (1 + metrics) + (
        6 + 1 + 2 + data + len("float32") + len("uint8") + 8 + 8
    )
    assert content_bytes(RecordDict({})) == 0


def test_a_million_keys_are_counted_and_nothing_is_serialised(monkeypatch: pytest.MonkeyPatch) -> None:
    content = RecordDict({"result": MetricRecord({})})
    # past the record's own check of each key and value, which takes seconds
    content["result"].__dict__["_data"].update({f"{number:07d}": number for number in range(10**6)})
    assert len(content["result"]) == 10**6

    def serialised(*_: Any) -> Any:
        raise AssertionError("something was serialised")

    for kind in (RecordDict, MetricRecord, ConfigRecord, ArrayRecord, Array):
        for method in ("deflate", "object_id"):
            monkeypatch.setattr(kind, method, property(serialised) if method == "object_id" else serialised)
    for kind in (MetricRecord, ConfigRecord, ArrayRecord):
        monkeypatch.setattr(kind, "count_bytes", serialised)
    assert content_bytes(content) == len("result") + 10**6 * (7 + 8)


# ---- one field at a time


def fields_of(message: Any) -> list[tuple[str, str]]:
    content = message.encode()
    return [(name, key) for name, record in content.items() if not isinstance(record, ArrayRecord) for key in record]


FIELDS = [
    (message, record, key) for message in MESSAGES for record, key in fields_of(message) if not key.startswith("order.")
]
FIELD_IDS = [f"{type(message).__name__}.{key}" for message, _, key in FIELDS]
BOUNDED = {"schema", "round", "partition", "macs", "params", "peak-memory-bytes", "seed"}
BOUNDED |= {"deadline-seconds", "accuracy"}


@pytest.mark.parametrize(("message", "record", "key"), FIELDS, ids=FIELD_IDS)
def test_a_missing_field_is_named(message: Any, record: str, key: str) -> None:
    with pytest.raises(MessageError, match=key):
        DECODE[type(message)](with_field(message, record, key, None))


@pytest.mark.parametrize(("message", "record", "key"), FIELDS, ids=FIELD_IDS)
def test_a_field_of_another_type_is_named(message: Any, record: str, key: str) -> None:
    sent = message.encode()[record][key]
    wrong: list[Any] = [[1], [1.5], math.nan, math.inf, -math.inf]
    if record != "result":  # metrics hold numbers only
        wrong += [True, b"1", [b"1"], "1" if not isinstance(sent, str) else 1]
        wrong += [["1"]] if key != "class-names" else []
    if isinstance(sent, int):
        wrong.append(1.5)
    for value in wrong:
        with pytest.raises(MessageError, match=key):
            DECODE[type(message)](with_field(message, record, key, value))


BELOW = [(message, record, key) for message, record, key in FIELDS if key in BOUNDED]


@pytest.mark.parametrize(
    ("message", "record", "key"), BELOW, ids=[f"{type(message).__name__}.{key}" for message, _, key in BELOW]
)
@pytest.mark.parametrize("value", [-1, -(2**63)])
def test_a_negative_field_is_refused(message: Any, record: str, key: str, value: int) -> None:
    if isinstance(message, Hello):
        with pytest.raises(MessageError, match="different code"):
            Hello.decode(with_field(message, record, key, value)).require_match(HELLO)
        return
    with pytest.raises(MessageError):
        DECODE[type(message)](with_field(message, record, key, value))


@pytest.mark.parametrize(
    ("message", "record", "key", "value", "expected"),
    [
        (TASK, "task", "schema", 1, "speaks schema 1, this one 3"),
        (TRAINED, "echo", "schema", 1, "speaks schema 1, this one 3"),
        (SCORE, "echo", "schema", 1, "speaks schema 1, this one 3"),
        (TASK, "task", "schema", 4, "speaks schema 4, this one 3"),
        (TASK, "task", "layout", "0" * 64, "layout differs"),
        (TASK, "task", "class-names", ["a"] * 65_537, "class-names must be at most 65536 names of 1000 characters"),
        (TASK, "task", "network", "{}", "not an architecture"),
        (TASK, "task", "network", "", "not valid JSON"),
        (SCORE, "result", "accuracy", 1.01, "impossible"),
        (SCORE, "result", "num-examples", 0, "impossible"),
    ],
)
def test_an_impossible_field_says_what_is_wrong(message: Any, record: str, key: str, value: Any, expected: str) -> None:
    with pytest.raises(MessageError, match=expected):
        DECODE[type(message)](with_field(message, record, key, value))


def test_a_reply_for_another_architecture_is_refused() -> None:
    other = Architecture.with_kept(ARCHITECTURE.base, {"hidden": (0, 3)})
    reason = rf"^weights must be <f4 of shape \({other.layout.size}\), not <f4 of \({LAYOUT.size},\)$"
    with pytest.raises(MessageError, match=reason):
        Result.decode(TRAINED.encode(), {**SPECS, "weights": ArraySpec("<f4", (other.layout.size,))}, ROWS)


MAY_BE_EMPTY = [(TASK, "arrays", ArrayRecord)]


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_records_that_are_missing_or_of_another_kind_are_refused(message: Any) -> None:
    decode = DECODE[type(message)]
    with pytest.raises(MessageError):
        decode(RecordDict({}))
    kinds: list[Any] = [ConfigRecord, MetricRecord, ArrayRecord]
    for name in message.encode():
        content = message.encode()
        del content[name]
        with pytest.raises(MessageError):
            decode(content)
        for kind in kinds:
            content = message.encode()
            content[name] = kind({})
            if (message, name, kind) in MAY_BE_EMPTY:
                continue
            with pytest.raises(MessageError):
                decode(content)


@pytest.mark.parametrize("message", [TASK, TRAINED], ids=["Task", "Result"])
def test_one_record_holds_all_arrays(message: Any) -> None:
    content = message.encode()
    content["more"] = ArrayRecord({"more": Array(VALUES)})
    with pytest.raises(MessageError, match="one array record, named 'arrays'"):
        DECODE[type(message)](content)


# ---- the order


ORDERS: list[type[Settings]] = [TrainingOrder, ScaledOrder, ProximalOrder, EvaluationOrder]
ORDER_FIELDS = [(kind, one) for kind in ORDERS for one in dataclasses.fields(kind)]  # type: ignore[arg-type]
ORDER_IDS = [f"{kind.__name__}.{one.name}" for kind, one in ORDER_FIELDS]


def ordered(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """What the device half reads from the order that it was sent."""
    content = dataclasses.replace(TASK, order=values).encode()
    return kind.from_mapping(Task.decode(over_the_wire(content), Architecture).order)


@pytest.mark.parametrize("kind", ORDERS)
def test_an_order_survives_the_wire(kind: type[Settings]) -> None:
    order = kind.picked_from(TASK.order)
    assert ordered(kind, order.to_mapping()) == order


@pytest.mark.parametrize(("kind", "one"), ORDER_FIELDS, ids=ORDER_IDS)
def test_a_field_of_an_order_of_another_type_is_named(kind: type[Settings], one: Any) -> None:
    key = one.name.replace("_", "-")
    wrong: list[Any] = [[1], [1.5], ["1"], b"1", math.nan, math.inf, -math.inf]
    if not isinstance(one.default, bool):
        wrong.append(True)
    if not isinstance(one.default, float):
        wrong.append(1.5)
    for value in [*wrong, "fast", ""]:
        with pytest.raises((MessageError, ConfigurationError), match=key) as caught:
            ordered(kind, {key: value})
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


BELOW_IN_ORDERS = [(kind, one) for kind, one in ORDER_FIELDS if not isinstance(one.default, str)]


@pytest.mark.parametrize(
    ("kind", "one"), BELOW_IN_ORDERS, ids=[f"{kind.__name__}.{one.name}" for kind, one in BELOW_IN_ORDERS]
)
@pytest.mark.parametrize("value", [-1, -(2**63)])
def test_a_negative_field_of_an_order_is_refused(kind: type[Settings], one: Any, value: int) -> None:
    key = one.name.replace("_", "-")
    with pytest.raises(ConfigurationError, match=f"^{key} must be"):
        ordered(kind, {key: value})


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (TrainingOrder, {"epochs": 0}, "^epochs must be at least 1, not 0$"),
        (TrainingOrder, {"batch-size": 0}, "^batch-size must be at least 1, not 0$"),
        (TrainingOrder, {"masked-loss": "all"}, "^masked-loss must be one of none, exclude, zero, not 'all'$"),
        (ScaledOrder, {"activation-scale": 0.0}, "^activation-scale must be above 0, not 0.0$"),
        (EvaluationOrder, {"batch-size": 0}, "^batch-size must be at least 1, not 0$"),
        (TrainingOrder, {"epoch": 1}, "^unknown setting 'epoch': did you mean 'epochs'"),
        (TrainingOrder, {"activation-scale": 0.5}, "^unknown setting 'activation-scale'"),
        (TrainingOrder, {"proximal-coefficient": 0.5}, "^unknown setting 'proximal-coefficient'"),
        (EvaluationOrder, {"epochs": 1}, "^unknown setting 'epochs'"),
    ],
)
def test_an_impossible_order_says_what_is_wrong(kind: type[Settings], values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        ordered(kind, values)


@pytest.mark.parametrize("kind", ORDERS)
def test_an_order_must_be_complete_and_for_the_step_that_reads_it(kind: type[Settings]) -> None:
    whole = kind().to_mapping()
    assert dataclasses.replace(TASK, order=whole).order_as(kind) == kind()
    for key in whole:
        with pytest.raises(MessageError, match=rf"^the order of step 'train' has no {key}$"):
            dataclasses.replace(TASK, order={one: whole[one] for one in whole if one != key}).order_as(kind)
    with pytest.raises(ConfigurationError, match=r"^unknown setting 'more'"):
        dataclasses.replace(TASK, order={**whole, "more": 1}).order_as(kind)


@pytest.mark.parametrize("value", [[1, 2], ["a"], [0.5], [True], [b"x"], b"bytes"])
def test_an_order_holds_single_values_only(value: Any) -> None:
    with pytest.raises(MessageError, match=r"^the order's 'batch-size' is no single value$"):
        ordered(TrainingOrder, {"batch-size": value})


@pytest.mark.parametrize("key", ["x" * 10_000, "two\nlines"])
def test_a_bad_key_of_an_order_gives_one_short_line(key: str) -> None:
    with pytest.raises(MessageError, match="is no single value") as caught:
        ordered(TrainingOrder, {key: [1]})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


# ---- any value at all


wire_scalars = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.booleans()
    | st.text(max_size=30).filter(lambda text: text.isprintable())
    | st.binary(max_size=10)
    | st.sampled_from(["", "../x", "0" * 64, ARCHITECTURE.to_json(), ARCHITECTURE.to_json().replace("16", "10000000")])
)


ORDERED = [(TASK, "task", f"order.{key}") for key in TASK.order]


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from([*FIELDS, *ORDERED]), wire_scalars | st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_any_field_value_gives_a_message_or_a_message_error(place: tuple[Any, str, str], value: Any) -> None:
    message, record, key = place
    if record == "result" and not isinstance(value, int | float | list):
        value = 0
    if record == "result" and isinstance(value, bool):
        value = int(value)
    content = over_the_wire(with_field(message, record, key, value))
    try:
        received = DECODE[type(message)](content)
    except MessageError:
        return
    assert type(received) is type(message)
    if isinstance(received, Task):
        try:
            order = ScaledOrder.from_mapping(received.order)
        except ConfigurationError:
            return
        for one in dataclasses.fields(order):
            assert type(getattr(order, one.name)) is type(one.default)


# ---- arrays


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(text: str) -> bytes:
    """An .npy file of VALUES whose header says `text`."""
    encoded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(encoded).to_bytes(2, "little") + encoded + VALUES.tobytes()


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("weights.npy", VALUES.tobytes())
    return stream.getvalue()


def with_weights(data: bytes, dtype: str = "float32", shape: tuple[int, ...] = (LAYOUT.size,)) -> RecordDict:
    """The content of a task, and of an answer alike, whose weights are these bytes, said to be of this form."""
    content = TRAINED.encode()
    content.update(TASK.encode())
    content["arrays"] = ArrayRecord({"weights": Array(dtype, shape, "numpy.ndarray", data)})
    return over_the_wire(content)


WEIGHTS_OF: dict[str, Decode] = {
    "Task": lambda content: Task.decode(content, Architecture).weights,
    "Result": lambda content: Result.decode(content, {"weights": SPEC}, ROWS).arrays["weights"],
}
both = pytest.mark.parametrize("weights_of", WEIGHTS_OF.values(), ids=WEIGHTS_OF.keys())


GOOD = npy(VALUES)
SHAPE = f"({LAYOUT.size},)"
DAMAGED = {
    "nothing": b"",
    "only the magic": GOOD[:6],
    "header cut": GOOD[:50],
    "one byte short": GOOD[:-1],
    "one value short": GOOD[:-4],
    "one trailing byte": GOOD + b"\0",
    "many trailing bytes": GOOD + b"\0" * 10**6,
    "raw values without a header": VALUES.tobytes(),
    "big endian": npy(VALUES.astype(">f4")),
    "float64": npy(VALUES.astype(np.float64)),
    "half the values as float64": npy(np.zeros(LAYOUT.size // 2)),
    "int32": npy(VALUES.astype(np.int32)),
    "matrix": npy(VALUES[None]),
    "scalar": npy(np.float32(1)),
    "structure": npy(np.zeros(LAYOUT.size, dtype=[("a", "<f4")])),
    "pickled objects": npy(np.array([Path("/")] * LAYOUT.size, dtype=object)),
    "pickle": pickle.dumps(VALUES),
    "zip archive": archive(),
    "zip archive of the right length": archive().ljust(len(GOOD), b"\0"),
    "header that claims 4 terabytes": header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**12},)}}"),
    "header that claims nothing": header("{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}"),
    "negative length": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
    "object header": header(f"{{'descr': '|O', 'fortran_order': False, 'shape': {SHAPE}}}"),
    "header with code": header("__import__('os').getcwd()"),
    "header that nests": header("[" * 110),
    "later version": GOOD[:6] + b"\x09\x00" + GOOD[8:],
    "version 2": GOOD[:6] + b"\x02\x00" + GOOD[8:],
}


@both
def test_the_header_builder_is_right(weights_of: Decode) -> None:
    data = header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {SHAPE}}}")
    assert np.array_equal(weights_of(with_weights(data)), VALUES)


@both
@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_weights_are_refused(data: bytes, weights_of: Decode) -> None:
    with pytest.raises(MessageError, match="weights") as caught:
        weights_of(with_weights(data))
    assert len(str(caught.value)) < 400


@both
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float64", (LAYOUT.size,)),
        (">f4", (LAYOUT.size,)),
        ("object", (LAYOUT.size,)),
        ("", (LAYOUT.size,)),
        ("float32", ()),
        ("float32", (LAYOUT.size - 1,)),
        ("float32", (1, LAYOUT.size)),
        ("float32", (-LAYOUT.size,)),
        ("float32", (2**31 - 1, 2**31 - 1)),
    ],
)
def test_weights_declared_as_something_else_are_refused(dtype: str, shape: tuple[int, ...], weights_of: Decode) -> None:
    with pytest.raises(MessageError, match=r"^'weights' says .* but holds float32 of \(\d+,\)$"):
        weights_of(with_weights(GOOD, dtype, shape))


@pytest.mark.parametrize("names", [[], ["other"], ["weights", "more"], ["a", "weights"]])
def test_exactly_one_array_is_expected(names: list[str]) -> None:
    content = TRAINED.encode()
    content["arrays"] = ArrayRecord({name: Array(VALUES) for name in names})
    with pytest.raises(MessageError, match=r"must carry just these arrays: weights$"):
        Result.decode(content, {"weights": SPEC}, ROWS)


def answer(**arrays: Any) -> RecordDict:
    """TRAINED with these arrays instead of its own; None leaves one out, and what has no type of ours goes as it is."""
    content = TRAINED.encode()
    for name, array in arrays.items():
        if array is None:
            del content["arrays"][name]
        else:
            content["arrays"][name] = array if isinstance(array, Array) else Array(array)
    return content


LOGITS, LABELS = OTHER_ARRAYS["logits"], OTHER_ARRAYS["labels"]


def claimed(data: bytes, dtype: str = "float16", shape: tuple[int, ...] = LOGITS.shape) -> Array:
    return Array(dtype, shape, "numpy.ndarray", data)


def lying_header(shape: tuple[int, ...], data: bytes) -> Array:
    """Float16 values that say to be of this shape, in the header and beside it."""
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}}}".encode().ljust(117) + b"\n"
    return claimed(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data, shape=shape)


def test_several_arrays_are_decoded_by_name() -> None:
    received = Result.decode(over_the_wire(answer()), SPECS, ROWS).arrays
    assert {name: array.dtype.str for name, array in received.items()} == {n: s.dtype for n, s in SPECS.items()}
    assert received["logits"].tolist() == LOGITS.tolist()
    assert received["labels"].tolist() == [0, 2, 1, 255]
    received["logits"] += 1


WRONG_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "extra": ({"more": LABELS}, "must carry just these arrays: labels, logits, weights$"),
    "missing": ({"labels": None}, "must carry just these arrays: labels, logits, weights$"),
    "renamed": ({"labels": None, "label": LABELS}, "must carry just these arrays: labels, logits, weights$"),
    "another type of ours": (
        {"logits": LOGITS.astype(np.float32)},
        r"logits must be <f2 of shape \(rows, 3\), not <f4",
    ),
    "signed": ({"labels": LABELS.astype(np.int8)}, r"labels must be \|u1 of shape \(rows\), not \|i1"),
    "another type": ({"logits": LOGITS.astype(np.float64)}, "'logits' must be one of .* in C order, not float64"),
    "big endian": ({"logits": LOGITS.astype(">f2")}, "'logits' must be one of .* in C order, not >f2"),
    "truth values": ({"labels": LABELS > 1}, "'labels' must be one of .* in C order, not bool"),
    "Fortran order": ({"logits": np.asfortranarray(LOGITS)}, "'logits' must be one of .* in C order"),
    "too narrow": ({"logits": LOGITS[:, :2].copy()}, r"logits must be <f2 of shape \(rows, 3\), not <f2 of \(4, 2\)"),
    "transposed": ({"logits": LOGITS.T.copy()}, r"not <f2 of \(3, 4\)"),
    "flat": ({"logits": LOGITS.ravel()}, r"not <f2 of \(12,\)"),
    "deeper": ({"logits": LOGITS[None]}, r"not <f2 of \(1, 4, 3\)"),
    "one number": ({"labels": np.array(1, np.uint8)}, r"labels must be \|u1 of shape \(rows\), not \|u1 of \(\)"),
    "objects": ({"logits": claimed(npy(np.array([{}] * 4, dtype=object)), "object", (4,))}, "'logits' must be one of"),
    "truncated": ({"logits": claimed(npy(LOGITS)[:-1])}, "'logits' takes 24 bytes, not 23"),
    "longer": ({"logits": claimed(npy(LOGITS) + b"0")}, "'logits' takes 24 bytes, not 25"),
    "cut to nothing": ({"logits": claimed(b"")}, "'logits' cannot be read"),
    "more rows than images": (
        {"logits": np.zeros((5, 3), np.float16), "labels": np.zeros(5, np.uint8)},
        "logits has 5 rows, but the device registered 4 images",
    ),
    "a billion rows": ({"logits": lying_header((10**9, 3), b"")}, "logits has 1000000000 rows, but"),
    "minus four rows": ({"logits": lying_header((-4, 3), LOGITS.tobytes())}, "'logits' has the impossible shape"),
    "other numbers of rows": ({"labels": LABELS[:3]}, "differ in their number of rows"),
    "not a number": ({"logits": np.full((4, 3), np.nan, np.float16)}, "logits are not finite"),
    "infinite": ({"logits": np.full((4, 3), np.inf, np.float16)}, "logits are not finite"),
}


@pytest.mark.parametrize(("arrays", "reason"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS.keys())
def test_an_array_that_was_not_asked_for_in_this_form_is_refused(arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(MessageError, match=reason) as caught:
        Result.decode(over_the_wire(answer(**arrays)), SPECS, ROWS)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_fewer_rows_than_images_are_fine_as_long_as_they_agree(rows: int) -> None:
    content = over_the_wire(answer(logits=LOGITS[:rows], labels=LABELS[:rows]))
    assert [len(Result.decode(content, SPECS, ROWS).arrays[name]) for name in ("logits", "labels")] == [rows, rows]


def test_limits_are_inclusive_and_what_lies_beyond_is_located() -> None:
    low = np.array([-9, -1, -np.inf], np.float32)
    spec = ArraySpec("<f2", (None, 3), low=low, high=2.0)
    values = np.array([[-9, -1, -60_000], [2, 2, 2]], np.float16)
    specs = {"weights": SPEC, "logits": spec, "labels": SPECS["labels"]}

    def received(array: Any) -> Any:
        content = over_the_wire(answer(logits=array, labels=LABELS[:2]))
        return Result.decode(content, specs, ROWS).arrays["logits"]

    assert np.array_equal(received(values), values)
    for (row, column), value, side in (((0, 1), -1.5, "below"), ((1, 0), -9.5, "below"), ((1, 2), 2.5, "above")):
        changed = values.copy()
        changed[row, column] = value
        with pytest.raises(
            MessageError, match=f"^logits has {value:g} at {3 * row + column}, {side} what is possible$"
        ):
            received(changed)


def test_the_norm_is_that_of_all_values_and_does_not_overflow() -> None:
    specs = {**SPECS, "logits": ArraySpec("<f2", (None, 3), largest_norm=5.0)}
    fits, long = np.zeros((4, 3), np.float16), np.full((4, 3), 60_000, np.float16)
    fits[0, 0], fits[3, 2] = 3, -4
    assert Result.decode(answer(logits=fits), specs, ROWS).arrays["logits"][0, 0] == 3
    with pytest.raises(MessageError, match=r"^logits have norm 2\.08e\+05, above the limit of 5$"):
        Result.decode(answer(logits=long), specs, ROWS)


def test_the_largest_reply_is_that_with_a_row_per_image() -> None:
    assert [spec.nbytes(ROWS) for spec in SPECS.values()] == [4 * LAYOUT.size, 2 * 3 * ROWS, ROWS]


class Bomb:
    """Unpickling this would create the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    target = tmp_path / "exploded"
    pickle.loads(pickle.dumps(Bomb(target)))
    assert target.exists(), "the bomb works"
    target.unlink()
    for data in (pickle.dumps(Bomb(target)), npy(np.array([Bomb(target)] * LAYOUT.size, dtype=object))):
        with pytest.raises(MessageError):
            Task.decode(with_weights(data), Architecture)
        with pytest.raises(MessageError):
            Result.decode(with_weights(data), {"weights": SPEC}, ROWS)
    assert not target.exists()


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@settings(max_examples=examples(300), deadline=None)
@given(st.integers(0, 200), st.integers(0, 20), st.binary(max_size=20))
def test_edited_weights_are_refused_or_have_the_right_form(place: int, removed: int, added: bytes) -> None:
    data = GOOD[:place] + added + GOOD[place + removed :]
    try:
        weights = WEIGHTS_OF["Task"](with_weights(data))
    except MessageError:
        return
    assert weights.dtype == np.float32
    assert weights.shape == (LAYOUT.size,)
