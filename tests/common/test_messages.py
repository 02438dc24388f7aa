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
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import MessageError
from common.layout import Vector
from common.messages import (
    SCHEMA,
    DeviceReport,
    EvaluateResult,
    Hello,
    Task,
    TrainResult,
    code_fingerprint,
    content_bytes,
)
from common.models.description import BaseNetwork

ARCHITECTURE = Architecture.with_kept(BaseNetwork("mlp", (1, 4, 4), 3), {"hidden": (0, 3, 7)})
LAYOUT = ARCHITECTURE.layout
VALUES: Vector = np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)

HELLO = Hello.mine()
REPORT = DeviceReport("device 1", "phone", 3, 120, DeviceBudget(macs=30_000_000, peak_memory_bytes=2**19))
TASK = Task(
    round=4,
    architecture=ARCHITECTURE,
    weights=VALUES,
    seed=2**62,
    epochs=2,
    batch_size=16,
    learning_rate=0.05,
    momentum=0.5,
    weight_decay=1e-4,
    max_gradient_norm=0.75,
    masked_loss="exclude",
    activation_scale=0.5,
    frozen_norms=True,
    deadline_seconds=30.5,
)
TRAINED = TrainResult(4, LAYOUT.hash, VALUES, samples=120, loss=1.25, seconds=3.5, peak_rss_bytes=2**33)
SCORE = EvaluateResult(round=4, loss=0.5, accuracy=0.75, samples=40)

Decode = Callable[[RecordDict], Any]
DECODE: dict[type, Decode] = {
    Hello: Hello.decode,
    DeviceReport: DeviceReport.decode,
    Task: Task.decode,
    TrainResult: lambda content: TrainResult.decode(content, ARCHITECTURE),
    EvaluateResult: EvaluateResult.decode,
}
MESSAGES: list[Any] = [HELLO, REPORT, TASK, TRAINED, SCORE]
NAMES = [type(message).__name__ for message in MESSAGES]


def over_the_wire(content: RecordDict) -> RecordDict:
    """The content after Flower has taken it apart into objects and put it together again, and after protobuf."""
    objects = {name: part.deflate() for name, part in get_all_nested_objects(content).items()}
    inflated = inflate_object_from_contents(content.object_id, objects)
    assert isinstance(inflated, RecordDict)
    return recorddict_from_proto(recorddict_to_proto(inflated))


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_every_message_survives_the_wire(message: Any) -> None:
    again = DECODE[type(message)](over_the_wire(message.encode()))
    for one in dataclasses.fields(message):
        sent, received = getattr(message, one.name), getattr(again, one.name)
        assert type(received) is type(sent)
        assert np.array_equal(received, sent) if one.name == "weights" else received == sent


@given(
    st.integers(1, 2**62 - 1) | st.none(),
    st.integers(1, 2**62 - 1) | st.none(),
    st.integers(1, 2**62 - 1) | st.none(),
)
def test_every_budget_survives_the_wire(macs: int | None, params: int | None, memory: int | None) -> None:
    report = dataclasses.replace(REPORT, budget=DeviceBudget(macs, params, memory))
    assert DeviceReport.decode(over_the_wire(report.encode())) == report


def test_decoded_weights_are_exact_and_can_be_written_to() -> None:
    special = VALUES.copy()
    special[:5] = [math.nan, math.inf, -math.inf, -0.0, 1e-45]  # whether they are sane is the server's admission
    received = Task.decode(over_the_wire(dataclasses.replace(TASK, weights=special).encode())).weights
    assert received.tobytes() == special.tobytes()
    received += 1


@pytest.mark.parametrize("other", [VALUES.astype(">f4"), VALUES.astype(np.float64), VALUES.repeat(2)[::2]])
def test_weights_are_sent_as_little_endian_float32(other: Any) -> None:
    received = Task.decode(dataclasses.replace(TASK, weights=other).encode()).weights
    assert received.dtype == np.dtype("<f4")
    assert np.array_equal(received, VALUES)


def test_content_bytes_counts_four_bytes_per_weight() -> None:
    extra = content_bytes(TASK.encode()) - 4 * LAYOUT.size
    assert 0 < extra < 1_000
    assert content_bytes(REPORT.encode()) < 200


# ---- the handshake


def test_the_same_code_matches() -> None:
    HELLO.require_match(Hello.mine())
    assert code_fingerprint() == Hello.mine().fingerprint
    assert len(code_fingerprint()) == 16


@pytest.mark.parametrize("change", [{"schema": SCHEMA + 1}, {"fingerprint": "0" * 16}])
def test_other_code_is_refused_with_both_versions(change: dict[str, Any]) -> None:
    theirs = dataclasses.replace(HELLO, version="9.9", **change)
    with pytest.raises(MessageError, match=r"server 9\.9 .* install the same FedDAC on both"):
        theirs.require_match(HELLO)


NAMES_REFUSED = [
    "",
    " ",
    ".",
    "..",
    "../device",
    "a/../b",
    "a\\b",
    "/etc/passwd",
    "a\0b",
    "a\n",
    "a\u202eb",
    "é",
    "-flag",
    "<script>",
    "a" * 65,
    "a" * 10_000,
]


@pytest.mark.parametrize("field", ["name", "profile"])
@pytest.mark.parametrize("text", NAMES_REFUSED, ids=[repr(text[:20]) for text in NAMES_REFUSED])
def test_names_that_could_be_paths_or_markup_are_refused(field: str, text: str) -> None:
    change: dict[str, Any] = {field: text}
    report = dataclasses.replace(REPORT, **change)
    with pytest.raises(MessageError, match=f"a device's {field} is 1 to 64 letters") as caught:
        DeviceReport.decode(report.encode())
    assert len(str(caught.value)) < 200


# ---- one field at a time


def with_field(message: Any, record: str, key: str, value: Any) -> RecordDict:
    """The encoded message with one field replaced, or removed where `value` is None."""
    content: RecordDict = message.encode()
    if value is None:
        del content[record][key]
    else:
        content[record][key] = value
    return content


def fields_of(message: Any) -> list[tuple[str, str]]:
    content = message.encode()
    return [(name, key) for name, record in content.items() if not isinstance(record, ArrayRecord) for key in record]


FIELDS = [(message, record, key) for message in MESSAGES for record, key in fields_of(message)]
FIELD_IDS = [f"{type(message).__name__}.{key}" for message, _, key in FIELDS]
BOUNDED = {"schema", "round", "partition", "macs", "params", "peak-memory-bytes", "seed", "epochs", "batch-size"}
BOUNDED |= {"learning-rate", "momentum", "weight-decay", "deadline-seconds", "accuracy"}


@pytest.mark.parametrize(("message", "record", "key"), FIELDS, ids=FIELD_IDS)
def test_a_missing_field_is_named(message: Any, record: str, key: str) -> None:
    with pytest.raises(MessageError, match=key):
        DECODE[type(message)](with_field(message, record, key, None))


@pytest.mark.parametrize(("message", "record", "key"), FIELDS, ids=FIELD_IDS)
def test_a_field_of_another_type_is_named(message: Any, record: str, key: str) -> None:
    sent = message.encode()[record][key]
    wrong: list[Any] = [[1], [1.5], math.nan, math.inf, -math.inf]
    if record != "result":  # metrics hold numbers only
        wrong += [True, b"1", ["1"], "1" if not isinstance(sent, str) else 1]
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
        (REPORT, "report", "samples", 0, "device 1 reports 0 training images"),
        (REPORT, "report", "samples", 2**63, "training images"),
        (REPORT, "report", "macs", 2**62, "device 1 reports macs"),
        (REPORT, "report", "schema", 2, "speaks schema 2, this one 1"),
        (TASK, "task", "schema", 2, "speaks schema 2, this one 1"),
        (TRAINED, "echo", "schema", 2, "speaks schema 2, this one 1"),
        (SCORE, "echo", "schema", 2, "speaks schema 2, this one 1"),
        (TASK, "task", "batch-size", 0, "batch-size must be at least 1"),
        (TASK, "task", "layout", "0" * 64, "layout differs"),
        (TASK, "task", "architecture", "{}", "not an architecture"),
        (TASK, "task", "architecture", "", "not valid JSON"),
        (TRAINED, "echo", "layout", "0" * 64, "another architecture"),
        (SCORE, "result", "accuracy", 1.01, "impossible"),
        (SCORE, "result", "num-examples", 0, "impossible"),
    ],
)
def test_an_impossible_field_says_what_is_wrong(message: Any, record: str, key: str, value: Any, expected: str) -> None:
    with pytest.raises(MessageError, match=expected):
        DECODE[type(message)](with_field(message, record, key, value))


def test_a_reply_for_another_architecture_is_refused() -> None:
    other = Architecture.with_kept(ARCHITECTURE.base, {"hidden": (0, 3)})
    with pytest.raises(MessageError, match="another architecture"):
        TrainResult.decode(TRAINED.encode(), other)


@pytest.mark.parametrize("message", MESSAGES, ids=NAMES)
def test_records_that_are_missing_or_of_another_kind_are_refused(message: Any) -> None:
    decode = DECODE[type(message)]
    with pytest.raises(MessageError):
        decode(RecordDict({}))
    kinds: list[Any] = [ConfigRecord({}), MetricRecord({}), ArrayRecord({})]
    for name in message.encode():
        for kind in kinds:
            content = message.encode()
            content[name] = kind
            with pytest.raises(MessageError):
                decode(content)


wire_scalars = (
    st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.booleans()
    | st.text(max_size=30).filter(lambda text: text.isprintable())
    | st.binary(max_size=10)
    | st.sampled_from(["", "../x", "0" * 64, ARCHITECTURE.to_json(), ARCHITECTURE.to_json().replace("16", "10000000")])
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FIELDS), wire_scalars | st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_any_field_value_gives_a_message_or_a_message_error(place: tuple[Any, str, str], value: Any) -> None:
    message, record, key = place
    if record == "result" and not isinstance(value, int | float | list):
        value = 0
    if record == "result" and isinstance(value, bool):
        value = int(value)
    content = over_the_wire(with_field(message, record, key, value))
    try:
        decoded = DECODE[type(message)](content)
    except MessageError:
        return
    assert type(decoded) is type(message)


# ---- weights


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
    content = TASK.encode()
    content["weights"] = ArrayRecord({"weights": Array(dtype, shape, "numpy.ndarray", data)})
    return over_the_wire(content)


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


def test_the_header_builder_is_right() -> None:
    data = header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {SHAPE}}}")
    assert np.array_equal(Task.decode(with_weights(data)).weights, VALUES)


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_weights_are_refused(data: bytes) -> None:
    with pytest.raises(MessageError, match="weights") as caught:
        Task.decode(with_weights(data))
    assert len(str(caught.value)) < 400


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
def test_weights_declared_as_something_else_are_refused(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(MessageError, match="weights must be float32"):
        Task.decode(with_weights(GOOD, dtype, shape))


@pytest.mark.parametrize("names", [[], ["other"], ["weights", "more"], ["a", "weights"]])
def test_exactly_one_array_is_expected(names: list[str]) -> None:
    content = TRAINED.encode()
    content["weights"] = ArrayRecord({name: Array(VALUES) for name in names})
    with pytest.raises(MessageError, match="one array named 'weights'"):
        TrainResult.decode(content, ARCHITECTURE)


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
            Task.decode(with_weights(data))
    assert not target.exists()


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), st.integers(0, 20), st.binary(max_size=20))
def test_edited_weights_are_refused_or_have_the_right_form(place: int, removed: int, added: bytes) -> None:
    data = GOOD[:place] + added + GOOD[place + removed :]
    try:
        weights = Task.decode(with_weights(data)).weights
    except MessageError:
        return
    assert weights.dtype == np.float32
    assert weights.shape == (LAYOUT.size,)
