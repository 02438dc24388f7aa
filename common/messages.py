"""The wire schema: what is in every query, train and evaluate message and in its reply. Version 3.

What client and server say to each other is here, in its tools (`message_arrays`, `message_fields`) and in the methods'
contracts (`common.methods`). Every `decode` validates what it is given, because it comes from another machine, and
raises MessageError saying what was wrong; nothing is ever unpickled.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Self, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.arrays import Array, Arrays, ArraySpec, Vector
from common.budget import DeviceBudget, LocalTraining
from common.device_names import DEVICE_NAME
from common.errors import ArchitectureError, BudgetError, MessageError
from common.message_arrays import array_record, decode_array, encode_arrays
from common.message_fields import (
    LARGEST_NUMBER,
    config_record,
    metric_record,
    read_class_names,
    read_integer,
    read_number,
    read_text,
)
from common.network import Network
from common.rates import COUNTED, LatencyBound
from common.settings import Scalar, Settings

Group = TypeVar("Group", bound=Settings)

SCHEMA = 3
ORDER = "order."
"""What the keys of a task's order begin with on the wire."""
WEIGHTS = "weights"
"""The array that holds a network's weights as one flat float32 vector."""
HANDSHAKE = "query.handshake"
LARGEST_DEVICE_SAMPLES = 2**40
SHORTEST_LATENCY_MS, SMALLEST_SHARE = 1e-6, 1e-100
"""Of a bound on latency, with LARGEST_NUMBER for both: further out, products and sums of them become 0 or infinite.

An operation that takes seconds and one of a picosecond, by bounds of a microsecond and of years, are well inside; so
are the tiny rates that rounding leaves of a kind of work that was measured to take no time.
"""


@cache
def code_fingerprint() -> str:
    """A hash of the code both sides must share, so that a process that imported other code is found out."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted([*root.glob("common/**/*.py"), *root.glob("client/**/*.py")]):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


@cache
def code_version() -> str:
    """The installed version, or `source` when run from a checkout that is not installed."""
    try:
        return metadata.version("feddac")
    except metadata.PackageNotFoundError:
        return "source"


@dataclass(frozen=True)
class Hello:
    """The server's handshake query; with the names of the run's classes, for devices with data of their own."""

    schema: int
    fingerprint: str
    version: str
    class_names: tuple[str, ...] = ()

    @classmethod
    def mine(cls, class_names: Sequence[str] = ()) -> Self:
        """What this process runs, in a run of these classes."""
        return cls(SCHEMA, code_fingerprint(), code_version(), tuple(class_names))

    def encode(self) -> RecordDict:
        """As a query's content."""
        values: dict[str, Any] = {"schema": self.schema, "fingerprint": self.fingerprint, "version": self.version}
        return RecordDict({"hello": ConfigRecord({**values, "class-names": list(self.class_names)})})

    @classmethod
    def decode(cls, content: RecordDict) -> Self:
        """From a query's content."""
        values = config_record(content, "hello")
        fingerprint, version = read_text(values, "fingerprint"), read_text(values, "version")
        return cls(read_integer(values, "schema"), fingerprint, version, read_class_names(values))

    def require_match(self, mine: "Hello") -> None:
        """Raise MessageError unless both sides run the same schema and code."""
        if (self.schema, self.fingerprint) != (mine.schema, mine.fingerprint):
            raise MessageError(
                f"server and device run different code: server {self.version} ({self.fingerprint}), "
                f"device {mine.version} ({mine.fingerprint}); install the same FedDAC on both"
            )


@dataclass(frozen=True)
class DeviceReport:
    """A device's answer to the handshake: who it is, what it can afford, how many images it trains on and holds out."""

    name: str
    profile: str
    partition: int
    samples: int
    budget: DeviceBudget
    held_out: int = 0

    def encode(self) -> RecordDict:
        """As a reply's content; 0, or no shares, stands for a bound that the device does not have."""
        budget, latency = self.budget, self.budget.latency
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "name": self.name,
            "profile": self.profile,
            "partition": self.partition,
            "samples": self.samples,
            "held-out": self.held_out,
            "macs": budget.macs or 0,
            "params": budget.params or 0,
            "peak-memory-bytes": budget.peak_memory_bytes or 0,
            "training-memory-bytes": budget.training_memory_bytes or 0,
            "training-batch-size": budget.training.batch_size,
            "training-kept": budget.training.kept,
            "latency-ms": 0.0 if latency is None else latency.milliseconds,
            "latency-shares": [] if latency is None else list(latency.shares),
        }
        return RecordDict({"report": ConfigRecord(values)})

    @classmethod
    def decode(cls, content: RecordDict) -> Self:
        """From a reply's content; raises MessageError."""
        values = config_record(content, "report")
        _require_schema(values)
        name, profile = read_text(values, "name"), read_text(values, "profile")
        for what, text in (("name", name), ("profile", profile)):
            if not DEVICE_NAME.fullmatch(text):
                raise MessageError(f"a device's {what} is 1 to 64 letters, digits, spaces, '.', '_' or '-'")
        samples = read_integer(values, "samples")
        if not 1 <= samples <= LARGEST_DEVICE_SAMPLES:
            raise MessageError(f"{name} reports {samples} training images")
        held_out = read_integer(values, "held-out")
        if not 0 <= held_out <= LARGEST_DEVICE_SAMPLES:
            raise MessageError(f"{name} reports {held_out} images that it holds out")
        bounds: list[int | None] = []
        for key in ("macs", "params", "peak-memory-bytes", "training-memory-bytes"):
            bound = read_integer(values, key)
            if not 0 <= bound < 2**62:
                raise MessageError(f"{name} reports {key} = {bound}")
            bounds.append(bound or None)
        batch_size = read_integer(values, "training-batch-size")
        if not 1 <= batch_size <= LARGEST_DEVICE_SAMPLES:
            raise MessageError(f"{name} reports training-batch-size = {batch_size}")
        try:
            training = LocalTraining(batch_size, read_integer(values, "training-kept", minimum=0))
            macs, params, memory, training_memory = bounds
            budget = DeviceBudget(macs, params, memory, training_memory, latency=_latency(values), training=training)
        except BudgetError as error:
            raise MessageError(f"{name}: {error}") from None
        return cls(name, profile, read_integer(values, "partition", minimum=0), samples, budget, held_out)

    def require_training(self, training: LocalTraining) -> None:
        """Raise MessageError for a bound on memory that holds while the device trains otherwise than the run asks.

        The training is that of the run's settings on both sides. What another training takes says nothing of this one.
        """
        own = self.budget.training
        if self.budget.training_memory_bytes is not None and own != training:
            raise MessageError(
                f"{self.name} bounds its memory for other training than the run's: {own.batch_size} images at once and "
                f"{own.kept} values kept of each parameter, not {training.batch_size} and {training.kept}"
            )


@dataclass(frozen=True)
class Task:
    """What the server asks of a device: a step of a method, on a network, with an order and named arrays.

    `order` are the flat settings of the step, which its device half reads. Of `arrays` the one called "weights", where
    it is there, is the network's, of shape (network.layout.size,). `class_names` are those of the run, by which a
    device numbers data of its own.
    """

    method: str
    step: str
    round: int
    network: Network
    order: Mapping[str, Scalar]
    arrays: Arrays
    seed: int = 0
    deadline_seconds: float = 600.0
    class_names: tuple[str, ...] = ()

    @property
    def weights(self) -> Vector:
        """The network's weights; raises MessageError for a task without."""
        return self.array(WEIGHTS)

    def array(self, name: str) -> Array:
        """The array of this name; raises MessageError for a task without."""
        if name not in self.arrays:
            raise MessageError(f"step {self.step!r:.40} came without {name}")
        return self.arrays[name]

    def order_as(self, kind: type[Group]) -> Group:
        """The order as the settings that a step reads.

        Raises MessageError for a missing key, ConfigurationError for an unknown one or an impossible value.
        """
        missing = [key for key in kind.keys() if key not in self.order]  # noqa: SIM118
        if missing:
            raise MessageError(f"the order of step {self.step!r:.40} has no {missing[0]}")
        return kind.from_mapping(self.order)

    def encode(self, encoded: ArrayRecord | None = None) -> RecordDict:
        """As a train or evaluate message's content; `encoded` are these arrays encoded already, to be shared."""
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "method": self.method,
            "step": self.step,
            "round": self.round,
            "seed": self.seed,
            "deadline-seconds": self.deadline_seconds,
            "class-names": list(self.class_names),
            "network": self.network.to_json(),
            "layout": self.network.layout.hash,
        }
        arrays = encode_arrays(self.arrays) if encoded is None else encoded
        # one record, because mods of Flower's expect a single one of each kind
        values |= {f"{ORDER}{key}": value for key, value in self.order.items()}
        return RecordDict({"arrays": arrays, "task": ConfigRecord(values)})

    @classmethod
    def decode(cls, content: RecordDict, kind: type[Network]) -> Self:
        """From a message's content with a network of this kind; raises MessageError."""
        values = config_record(content, "task")
        _require_schema(values)
        try:
            network = kind.from_json(read_text(values, "network"))
        except ArchitectureError as error:
            raise MessageError(str(error)) from None
        if read_text(values, "layout") != network.layout.hash:
            raise MessageError("the network's layout differs between server and device")
        order: dict[str, Scalar] = {}
        for key, value in values.items():
            if key.startswith(ORDER):
                if not isinstance(value, bool | int | float | str):
                    raise MessageError(f"the order's {key.removeprefix(ORDER)!r:.60} is no single value")
                order[key.removeprefix(ORDER)] = value
        arrays = {}
        for name, array in array_record(content).items():
            spec = ArraySpec("<f4", (network.layout.size,)) if name == WEIGHTS else None
            arrays[name] = decode_array(name, array, spec, 0)[0]
        return cls(
            method=read_text(values, "method"),
            step=read_text(values, "step"),
            round=read_integer(values, "round", minimum=0),
            network=network,
            order=order,
            arrays=arrays,
            seed=read_integer(values, "seed", minimum=0),
            deadline_seconds=read_number(values, "deadline-seconds", minimum=0),
            class_names=read_class_names(values),
        )


@dataclass(frozen=True)
class Result:
    """A device's answer to a step and what it took: images used, mean loss, seconds, peak resident bytes, arrays."""

    method: str
    step: str
    round: int
    samples: int
    loss: float
    seconds: float
    peak_rss_bytes: int
    arrays: Arrays

    def encode(self) -> RecordDict:
        """As a train reply's content."""
        echo: dict[str, Any] = {"schema": SCHEMA, "method": self.method, "step": self.step, "round": self.round}
        metrics: dict[str, Any] = {
            "num-examples": self.samples,
            "loss": self.loss,
            "seconds": self.seconds,
            "peak-rss-bytes": self.peak_rss_bytes,
        }
        arrays = encode_arrays(self.arrays)
        return RecordDict({"arrays": arrays, "result": MetricRecord(metrics), "echo": ConfigRecord(echo)})

    @classmethod
    def decode(cls, content: RecordDict, specs: Mapping[str, ArraySpec], rows: int) -> Self:
        """From a train reply's content with just the arrays of `specs`, of at most `rows` rows; raises MessageError.

        Form and values of the arrays are checked; whether the echo and the figures are sane is the server's admission.
        """
        echo, metrics = config_record(content, "echo"), metric_record(content)
        _require_schema(echo)
        record = array_record(content)
        if set(record) != set(specs):
            raise MessageError(f"the reply must carry just these arrays: {', '.join(sorted(specs)) or 'none'}")
        arrays: dict[str, Array] = {}
        counts = set()
        for name, spec in specs.items():
            arrays[name], count = decode_array(name, record[name], spec, rows)
            counts.add(count)
        if len(counts - {None}) > 1:
            raise MessageError("the arrays of the reply differ in their number of rows")
        for name, spec in specs.items():
            spec.check_values(name, arrays[name], rows)
        return cls(
            method=read_text(echo, "method"),
            step=read_text(echo, "step"),
            round=read_integer(echo, "round", minimum=0),
            samples=read_integer(metrics, "num-examples"),
            loss=read_number(metrics, "loss"),
            seconds=read_number(metrics, "seconds"),
            peak_rss_bytes=read_integer(metrics, "peak-rss-bytes"),
            arrays=arrays,
        )


@dataclass(frozen=True)
class EvaluateResult:
    """A device's score of the model it was sent, on its own held-out images."""

    round: int
    loss: float
    accuracy: float
    samples: int

    def encode(self) -> RecordDict:
        """As an evaluate reply's content."""
        metrics: dict[str, Any] = {"num-examples": self.samples, "loss": self.loss, "accuracy": self.accuracy}
        echo: dict[str, Any] = {"schema": SCHEMA, "round": self.round}
        return RecordDict({"result": MetricRecord(metrics), "echo": ConfigRecord(echo)})

    @classmethod
    def decode(cls, content: RecordDict) -> Self:
        """From an evaluate reply's content; raises MessageError."""
        echo, metrics = config_record(content, "echo"), metric_record(content)
        _require_schema(echo)
        accuracy, samples = read_number(metrics, "accuracy"), read_integer(metrics, "num-examples")
        if not 0 <= accuracy <= 1 or samples < 1:
            raise MessageError(f"an accuracy of {accuracy} over {samples} images is impossible")
        return cls(read_integer(echo, "round", minimum=0), read_number(metrics, "loss"), accuracy, samples)


def _require_schema(values: ConfigRecord) -> None:
    if read_integer(values, "schema") != SCHEMA:
        raise MessageError(f"the other side speaks schema {values['schema']!r}, this one {SCHEMA}")


def _latency(values: Any) -> LatencyBound | None:
    """The bound on latency of a report, within limits that are safe to compute with; raises MessageError.

    What no bound can have, such as a negative share, is a BudgetError.
    """
    milliseconds, shares = read_number(values, "latency-ms", minimum=0.0), values.get("latency-shares")
    if milliseconds == 0 and shares == []:
        return None
    if not isinstance(shares, list) or len(shares) != len(COUNTED):
        raise MessageError(f"latency-shares must be {len(COUNTED)} numbers")
    if not all(isinstance(share, float) for share in shares):
        raise MessageError("latency-shares must be numbers")
    latency = LatencyBound(milliseconds, tuple(shares))
    read_number(values, "latency-ms", minimum=SHORTEST_LATENCY_MS)
    for share in shares:
        if share != 0 and not SMALLEST_SHARE <= share <= LARGEST_NUMBER:
            limits = f"{SMALLEST_SHARE:g} and {LARGEST_NUMBER:g}"
            raise MessageError(f"latency-shares must each be 0, or between {limits}, not {share}")
    return latency
