"""Generated hostile replies and reports, through the real strategy, exchange and serialisation.

Whatever one device sends, the model afterwards is, bit for bit, the mean of the others, or the old one if nobody else
answered; or the mean of all, if what was sent is an honest model within what admission allows.
"""

import json
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run as FlowerRun
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.groups import FederationSettings
from common.handshake import DeviceReport
from common.messages import Result, Task
from common.methods.contract import Contract
from common.methods.dac import DAC
from common.methods.training import TRAIN
from common.models.description import BaseNetwork
from common.progress import Silent
from server.cohorts import Cohort, FederationState
from server.devices import Device
from server.exchange import exchange
from server.handshake import Greeter
from server.methods.averaged import Averaged
from server.reference import load_reference
from server.run import Run
from server.strategy import MethodStrategy
from simulation.grid import InlineGrid
from tests.examples import examples

ARCHITECTURE = Architecture.with_kept(BaseNetwork("mlp", (1, 8, 8), 10), {"hidden": range(8)})
LAYOUT = ARCHITECTURE.layout
WEIGHTS = LAYOUT.flatten(ARCHITECTURE.build(0).state_dict())
SAMPLES = (10, 20, 30)
HOSTILE = 1
NAMES = [f"device-{number:02d}" for number in range(3)]
FIRST_NODE = 1000
LONG = 600.0  # seconds that no round here takes, however busy the machine is: every question is answered

Sent = Callable[[Message, Result], Message]
"""What the hostile device answers, from the question and the honest result."""

plenty = settings(max_examples=examples(100), deadline=None, suppress_health_check=list(HealthCheck))


def honest(partition: int) -> Result:
    weights = WEIGHTS + np.float32(0.01 * (partition + 1))
    return Result("dac", TRAIN, 1, SAMPLES[partition], 0.5, 1.0, 1, {"weights": weights.astype(np.float32)})


def weights_of(result: Result) -> np.ndarray:
    return result.arrays["weights"]


def mean_of(samples: dict[int, int]) -> np.ndarray:
    """The mean of the honest models of these partitions, each with this number of samples; the old one of none."""
    if not samples:
        return WEIGHTS
    total = sum(weights_of(honest(number)).astype(np.float64) * samples[number] for number in sorted(samples))
    return (total / sum(samples.values())).astype(np.float32)


def with_content(change: Callable[[RecordDict], object]) -> Sent:
    def send(request: Message, result: Result) -> Message:
        content = result.encode()
        change(content)
        return Message(content, reply_to=request)

    return send


def with_array(array: Array) -> Sent:
    return with_content(lambda content: content.update({"arrays": ArrayRecord({"weights": array})}))


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


# Weights that are floats of the right shape, but not what training can give.

positions = st.integers(0, LAYOUT.size - 1)
impossible = st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38])


@st.composite
def poisoned(draw: st.DrawFn) -> Sent:
    places, value = draw(st.lists(positions, min_size=1, max_size=5)), draw(impossible)

    def send(request: Message, result: Result) -> Message:
        weights = weights_of(result).copy()
        weights[places] = value
        return Message(replace(result, arrays={"weights": weights}).encode(), reply_to=request)

    return send


# Arrays of other types and shapes, and bytes that are no such array, under true and lying descriptions.

other_arrays = st.sampled_from(
    [
        WEIGHTS.astype(np.float64),
        WEIGHTS.astype(np.float16),
        WEIGHTS.astype(np.int64),
        WEIGHTS.astype(np.complex64),
        WEIGHTS.astype(">f4"),
        WEIGHTS.astype(bool),
        WEIGHTS.astype("U8"),
        WEIGHTS.view([("a", "<f4")]),
        WEIGHTS[:-1],
        WEIGHTS[:0],
        WEIGHTS[0],
        np.append(WEIGHTS, WEIGHTS[:1]),
        np.tile(WEIGHTS, 40),
        WEIGHTS[None],
        WEIGHTS[:, None],
        np.asfortranarray(WEIGHTS.reshape(2, -1)),
    ]
)
good = npy(weights_of(honest(HOSTILE)))
header = good[: len(good) - WEIGHTS.nbytes]
payloads = st.one_of(
    st.binary(max_size=300),
    st.integers(0, len(good) - 1).map(lambda length: good[:length]),
    st.binary(min_size=1, max_size=50).map(lambda tail: good + tail),
    st.binary(min_size=1, max_size=len(header)).map(lambda junk: junk + good[len(junk) :]).filter(lambda d: d != good),
    st.sampled_from(
        [
            pickle.dumps(WEIGHTS),
            npy(np.array([{}] * LAYOUT.size, dtype=object), allow_pickle=True),
            b"PK\x03\x04" + good,
            header.replace(str(LAYOUT.size).encode(), b"9" * len(str(LAYOUT.size))) + good[len(header) :],
            header.replace(b"<f4", b"<f8") + good[len(header) :],
            header.replace(b"<f4", b"|O8") + good[len(header) :],
            b"\x93NUMPY\x02\x00" + b"\xff\xff\xff\x7f" + b"{" * 1000,
            b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 0xFFFF,
        ]
    ),
)
described = st.one_of(
    st.builds(lambda array: Array(np.asarray(array)), other_arrays),
    st.builds(lambda data: Array("float32", (LAYOUT.size,), "numpy.ndarray", data), payloads),
    st.builds(
        lambda array: Array("float32", (LAYOUT.size,), "numpy.ndarray", npy(np.asarray(array))),
        other_arrays,
    ),
    st.builds(
        lambda dtype, shape: Array(dtype, tuple(shape), "numpy.ndarray", good),
        st.text(max_size=20).filter(lambda text: text != "float32"),
        st.lists(st.integers(-(2**63), 2**63), max_size=4),
    ),
)

# Records that are missing, superfluous, of another kind, or hold something else.

texts = st.text(max_size=30)
numbers = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from([0, -1, 2**40, 10.0, float("nan"), float("inf")]),
)
configured = st.one_of(numbers, texts, st.booleans(), st.binary(max_size=20), st.lists(texts, max_size=3))
measured = st.one_of(numbers, st.lists(st.integers(-9, 9), max_size=3))
records = st.one_of(
    st.dictionaries(texts, configured, max_size=4).map(ConfigRecord),
    st.dictionaries(texts, measured, max_size=4).map(MetricRecord),
    st.dictionaries(texts, other_arrays.map(lambda array: Array(np.asarray(array))), max_size=2).map(ArrayRecord),
)
PARTS = ("arrays", "result", "echo")
changes: st.SearchStrategy[Callable[[RecordDict], object]] = st.one_of(
    st.sampled_from(PARTS).map(lambda part: lambda content: content.pop(part)),
    st.tuples(st.sampled_from(PARTS), records).map(lambda one: lambda content: content.update({one[0]: one[1]})),
    st.tuples(texts, records).map(lambda one: lambda content: content.update({one[0] + "?": one[1]})),
    st.tuples(st.sampled_from(["schema", "method", "step", "round"]), configured).map(
        lambda one: lambda content: content["echo"].update({one[0]: one[1]})
    ),
    st.tuples(st.sampled_from(["num-examples", "loss", "seconds", "peak-rss-bytes"]), measured).map(
        lambda one: lambda content: content["result"].update({one[0]: one[1]})
    ),
    st.sampled_from(["num-examples", "loss", "seconds"]).map(lambda key: lambda content: content["result"].pop(key)),
    st.integers(2**16, 2**18).map(lambda size: lambda content: content.update({"x": ConfigRecord({"x": "x" * size})})),
    st.integers(10, 300).map(
        lambda count: lambda content: content["result"].update({f"k{n}": n for n in range(count)})
    ),
    st.tuples(texts.filter(lambda name: name != "weights"), other_arrays).map(
        lambda one: lambda content: content["arrays"].update({one[0]: Array(np.asarray(one[1]))})
    ),
    texts.filter(lambda name: name != "weights").map(
        lambda name: lambda content: content.update({"arrays": ArrayRecord({name: content["arrays"]["weights"]})})
    ),
    st.just(lambda content: content["arrays"].update({"more": Array(WEIGHTS)})),
    st.just(lambda content: content.clear()),
)


def an_error(code: int, reason: str) -> Sent:
    return lambda request, result: Message(Error(code, reason), reply_to=request)


def raises(text: str) -> Sent:
    def send(request: Message, result: Result) -> Message:
        raise RuntimeError(text)

    return send


other_echoes: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{"round": 0}, {"method": "fedavg"}, {"step": "evaluate"}]
)
hostile_replies: st.SearchStrategy[Sent] = st.one_of(
    poisoned(),
    described.map(with_array),
    changes.map(with_content),
    st.builds(an_error, st.integers(0, 999), st.text()),
    st.builds(raises, st.text()),
    st.just(lambda request, result: "no message at all"),
    other_echoes.map(lambda echo: lambda request, result: Message(replace(result, **echo).encode(), reply_to=request)),
)


def app_of(send: Sent, everyone: bool) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        Task.decode(message.content, Architecture)
        if everyone or partition == HOSTILE:
            return send(message, honest(partition))
        return Message(honest(partition).encode(), reply_to=message)

    return app


def grid_of(app: ClientApp, grid_class: type[InlineGrid] = InlineGrid) -> InlineGrid:
    return grid_class(app, [{"partition-id": number} for number in range(3)], {}, FlowerRun.create_empty(1))


class OneCohort(Averaged):
    """A method with the one cohort that it is given."""

    contract: ClassVar[type[Contract]] = DAC

    def find_cohorts(self, devices: Sequence[Device]) -> list[Cohort]:
        return self.cohorts


class Events:
    """A run folder that keeps events in memory."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def append(self, event: str, **fields: Any) -> None:
        self.all.append({"event": event, **fields})


REFERENCE = load_reference(Config())


def one_round(grid: Grid) -> tuple[Cohort, MethodStrategy, list[dict[str, Any]]]:
    cohort = Cohort("cohort-0", ARCHITECTURE, WEIGHTS, 0.5, list(NAMES))
    devices = {
        name: Device(FIRST_NODE + number, DeviceReport(name, "phone", number, SAMPLES[number], DeviceBudget()))
        for number, name in enumerate(NAMES)
    }
    events = Events()
    config = Config(federation=FederationSettings(round_timeout=LONG))
    run = Run(config, cast("Any", events), REFERENCE, torch.device("cpu"), Silent())
    method = OneCohort(run)
    method.cohorts = [cohort]
    strategy = MethodStrategy(method, FederationState(), devices, run)
    messages = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid)
    strategy.aggregate_train(1, exchange(grid, messages, LONG))
    return cohort, strategy, events.all


def check_round(grid: Grid, everyone: bool = False) -> dict[str, str]:
    """Run a round, check that nothing but honest models counted, and return every device's status."""
    cohort, strategy, events = one_round(grid)
    counted = {
        number: strategy.outcomes[name].samples
        for number, name in enumerate(NAMES)
        if strategy.outcomes[name].status == "trained"
    }
    assert everyone or {0, 2} <= set(counted)
    assert all(1 <= samples <= SAMPLES[number] for number, samples in counted.items())
    assert cohort.weights.tobytes() == mean_of(counted).tobytes()
    for event in events:
        json.dumps(event, allow_nan=False)
        reason = event.get("reason", "")
        assert len(reason) <= 300
        assert reason.isprintable()
    return {name: strategy.outcomes[name].status for name in NAMES}


@given(hostile_replies, st.booleans())
@settings(plenty, max_examples=examples(300))
def test_no_reply_touches_the_model_unless_it_is_honest(send: Sent, everyone: bool) -> None:
    statuses = check_round(grid_of(app_of(send, everyone)), everyone)
    assert set(statuses.values()) <= {"trained", "rejected", "failed"}


@given(st.one_of(poisoned(), described.map(with_array)))
@plenty
def test_arrays_that_are_not_the_models_are_refused(send: Sent) -> None:
    assert check_round(grid_of(app_of(send, False)))[NAMES[HOSTILE]] == "rejected"


# Bytes that no Flower library would have sent: what arrives is taken apart by Flower before FedDAC sees it.


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    kind = draw(st.sampled_from(["cut", "junk", "empty", "description", "type"]))
    share, junk = draw(st.floats(0, 0.95)), draw(st.binary(min_size=1, max_size=40))
    value = draw(st.sampled_from([b"null", b"5", b"[[]]", b'"text"', b"{}", b"[-1]", b"[1e400]"]))
    key = draw(st.sampled_from([b"shape", b"dtype", b"stype", b"arraychunk_ids"]))

    def apply(data: bytes) -> bytes:
        if kind == "cut":
            return data[: int(share * len(data))]
        if kind == "junk":
            return junk + data[len(junk) :]
        if kind == "empty":
            return b""
        if kind == "type":
            return re.sub(rb"^\w+", b"ConfigRecord", data)
        return re.sub(rb'("%s": )(\[[^]]*\]|"[^"]*")' % key, lambda match: match[1] + value, data)

    return apply


class DamagedGrid(InlineGrid):
    """The hostile device's reply is damaged on its way: in one of the objects that it is made of."""

    damage: Callable[[bytes], bytes]
    victim: int

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        arrived = super().pull_messages(message_ids)
        return [self._damaged(one) if one.metadata.src_node_id == FIRST_NODE + HOSTILE else one for one in arrived]

    def _damaged(self, message: Message) -> Message:
        contents = {object_id: one.deflate() for object_id, one in get_all_nested_objects(message).items()}
        chosen = sorted(contents, key=lambda object_id: (len(contents[object_id]), object_id))
        victim = chosen[self.victim % len(chosen)]
        if len(contents[victim]) < WEIGHTS.nbytes:  # other weights of the right form could not be told from honest ones
            contents[victim] = self.damage(contents[victim])
        else:
            contents[victim] = contents[victim][: -1 - self.victim]
        arrived = inflate_object_from_contents(message.object_id, contents)
        arrived.metadata.__dict__["_message_id"] = message.metadata.message_id  # type: ignore[attr-defined]
        return arrived  # type: ignore[return-value]


@given(damage(), st.integers(0, 6))
@settings(plenty, max_examples=examples(200))
def test_damaged_bytes_cost_their_sender_alone(apply: Callable[[bytes], bytes], victim: int) -> None:
    grid = grid_of(app_of(lambda request, result: Message(result.encode(), reply_to=request), False), DamagedGrid)
    assert isinstance(grid, DamagedGrid)
    grid.damage, grid.victim = apply, victim
    check_round(grid)


class ImpostorGrid(InlineGrid):
    """The hostile device's reply claims to answer the question that another device was asked."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        arrived = super().pull_messages(message_ids)
        for reply in arrived:
            if reply.metadata.src_node_id == FIRST_NODE + HOSTILE:
                other = int(reply.metadata.reply_to_message_id.rpartition("-")[2]) + 1
                reply.metadata.__dict__["_reply_to_message_id"] = f"message-{other}"
        return arrived


class RepeatingGrid(InlineGrid):
    """Every reply comes twice."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [reply for reply in super().pull_messages(message_ids) for _ in range(2)]


def as_it_is(request: Message, result: Result) -> Message:
    return Message(result.encode(), reply_to=request)


def test_no_device_answers_for_another() -> None:
    statuses = check_round(grid_of(app_of(as_it_is, False), ImpostorGrid))
    assert statuses == {NAMES[0]: "trained", NAMES[1]: "failed", NAMES[2]: "trained"}


def test_a_reply_counts_once() -> None:
    assert set(check_round(grid_of(app_of(as_it_is, False), RepeatingGrid)).values()) == {"trained"}


def test_an_oversized_reply_is_refused_by_its_size() -> None:
    def send(request: Message, result: Result) -> Message:
        content = result.encode()
        content["more"] = ConfigRecord({"more": b"x" * 2**20})
        return Message(content, reply_to=request)

    _, strategy, _ = one_round(grid_of(app_of(send, False)))
    assert re.search(r"takes \d+ bytes, above the limit of", strategy.outcomes[NAMES[HOSTILE]].reason)


def test_a_connection_that_is_lost_is_not_blamed_on_a_device() -> None:
    class LostGrid(InlineGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            raise ConnectionError("the SuperLink is gone")

    with pytest.raises(ConnectionError, match="SuperLink is gone"):
        one_round(grid_of(app_of(as_it_is, False), LostGrid))


# The handshake.

REPORT = DeviceReport("device", "phone", 0, 10, DeviceBudget(macs=100))
FIELDS = ("schema", "name", "profile", "partition", "samples", "macs", "params", "peak-memory-bytes")
reports: st.SearchStrategy[Callable[[RecordDict], object]] = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), configured, min_size=1).map(
        lambda values: lambda content: content["report"].update(values)
    ),
    st.sampled_from(FIELDS).map(lambda key: lambda content: content["report"].pop(key)),
    st.tuples(st.sampled_from(["report", "x"]), records).map(
        lambda one: lambda content: content.update({one[0]: one[1]})
    ),
    st.sampled_from(
        ["../../x", "a/b", "a\\b", "..", "/etc/passwd", "C:x", "a\x00", "a\n", "-x", "a" * 65, "ⅷ", ""]
    ).map(lambda name: lambda content: content["report"].update({"name": name})),
    st.just(lambda content: content.update({"x": ConfigRecord({"x": "x" * 2**17})})),
    st.just(lambda content: content.clear()),
)


@given(reports)
@settings(plenty, max_examples=examples(200))
def test_no_report_does_more_than_leave_its_device_out(change: Callable[[RecordDict], object]) -> None:
    app = ClientApp()

    @app.query("handshake")
    def report(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        content = replace(REPORT, name=f"device-{partition}", partition=partition).encode()
        if partition == HOSTILE:
            change(content)
        return Message(content, reply_to=message)

    greeter = Greeter(grid_of(app), 5, Silent())
    greeter.greet()
    devices = {device.node_id - FIRST_NODE: device.report for device in greeter.collect()}
    assert {0, 2} <= set(devices)
    assert (greeter.first_refusal == "") == (HOSTILE in devices)
    assert greeter.first_refusal.isprintable()
    if HOSTILE in devices:
        admitted = devices[HOSTILE]
        for text in (admitted.name, admitted.profile):
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", text)
        assert admitted.samples >= 1
        assert admitted.partition >= 0
        json.dumps(Device(1, admitted).entry("cohort-0").to_dict(), allow_nan=False)
