"""The wire schema: what is in every query, train and evaluate message and in its reply. Version 3.

Client and server share nothing but this file and the methods' contracts (`common.methods`). Every `decode` validates
what it is given, because it comes from another machine, and raises MessageError saying what was wrong; nothing is ever
unpickled.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.lib import format as npy

from common.arrays import DTYPES, Array, Arrays, ArraySpec, Vector
from common.budget import DeviceBudget, LocalTraining
from common.device_names import DEVICE_NAME
from common.errors import ArchitectureError, BudgetError, MessageError
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
LARGEST_NUMBER = 1e18
"""Of what a device reports: a finite number near the largest overflows once it is weighted and summed."""


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
    """The server's handshake query."""

    schema: int
    fingerprint: str
    version: str

    @classmethod
    def mine(cls) -> Self:
        """What this process runs."""
        return cls(SCHEMA, code_fingerprint(), code_version())

    def encode(self) -> RecordDict:
        """As a query's content."""
        values: dict[str, Any] = {"schema": self.schema, "fingerprint": self.fingerprint, "version": self.version}
        return RecordDict({"hello": ConfigRecord(values)})

    @classmethod
    def decode(cls, content: RecordDict) -> Self:
        """From a query's content."""
        values = _config(content, "hello")
        return cls(_integer(values, "schema"), _text(values, "fingerprint"), _text(values, "version"))

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
        values = _config(content, "report")
        _require_schema(values)
        name, profile = _text(values, "name"), _text(values, "profile")
        for what, text in (("name", name), ("profile", profile)):
            if not DEVICE_NAME.fullmatch(text):
                raise MessageError(f"a device's {what} is 1 to 64 letters, digits, spaces, '.', '_' or '-'")
        samples = _integer(values, "samples")
        if not 1 <= samples <= LARGEST_DEVICE_SAMPLES:
            raise MessageError(f"{name} reports {samples} training images")
        held_out = _integer(values, "held-out")
        if not 0 <= held_out <= LARGEST_DEVICE_SAMPLES:
            raise MessageError(f"{name} reports {held_out} images that it holds out")
        bounds: list[int | None] = []
        for key in ("macs", "params", "peak-memory-bytes", "training-memory-bytes"):
            bound = _integer(values, key)
            if not 0 <= bound < 2**62:
                raise MessageError(f"{name} reports {key} = {bound}")
            bounds.append(bound or None)
        batch_size = _integer(values, "training-batch-size")
        if not 1 <= batch_size <= LARGEST_DEVICE_SAMPLES:
            raise MessageError(f"{name} reports training-batch-size = {batch_size}")
        try:
            training = LocalTraining(batch_size, _integer(values, "training-kept", minimum=0))
            macs, params, memory, training_memory = bounds
            budget = DeviceBudget(macs, params, memory, training_memory, latency=_latency(values), training=training)
        except BudgetError as error:
            raise MessageError(f"{name}: {error}") from None
        return cls(name, profile, _integer(values, "partition", minimum=0), samples, budget, held_out)


@dataclass(frozen=True)
class Task:
    """What the server asks of a device: a step of a method, on a network, with an order and named arrays.

    `order` are the flat settings of the step, which its device half reads. Of `arrays` the one called "weights", where
    it is there, is the network's, of shape (network.layout.size,).
    """

    method: str
    step: str
    round: int
    network: Network
    order: Mapping[str, Scalar]
    arrays: Arrays
    seed: int = 0
    deadline_seconds: float = 600.0

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
        values = _config(content, "task")
        _require_schema(values)
        try:
            network = kind.from_json(_text(values, "network"))
        except ArchitectureError as error:
            raise MessageError(str(error)) from None
        if _text(values, "layout") != network.layout.hash:
            raise MessageError("the network's layout differs between server and device")
        order: dict[str, Scalar] = {}
        for key, value in values.items():
            if key.startswith(ORDER):
                if not isinstance(value, bool | int | float | str):
                    raise MessageError(f"the order's {key.removeprefix(ORDER)!r:.60} is no single value")
                order[key.removeprefix(ORDER)] = value
        arrays = {}
        for name, array in _arrays(content).items():
            spec = ArraySpec("<f4", (network.layout.size,)) if name == WEIGHTS else None
            arrays[name] = _decode_array(name, array, spec, 0)[0]
        return cls(
            method=_text(values, "method"),
            step=_text(values, "step"),
            round=_integer(values, "round", minimum=0),
            network=network,
            order=order,
            arrays=arrays,
            seed=_integer(values, "seed", minimum=0),
            deadline_seconds=_number(values, "deadline-seconds", minimum=0),
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
        echo, metrics = _config(content, "echo"), _metrics(content)
        _require_schema(echo)
        record = _arrays(content)
        if set(record) != set(specs):
            raise MessageError(f"the reply must carry just these arrays: {', '.join(sorted(specs)) or 'none'}")
        arrays: dict[str, Array] = {}
        counts = set()
        for name, spec in specs.items():
            arrays[name], count = _decode_array(name, record[name], spec, rows)
            counts.add(count)
        if len(counts - {None}) > 1:
            raise MessageError("the arrays of the reply differ in their number of rows")
        for name, spec in specs.items():
            spec.check_values(name, arrays[name], rows)
        return cls(
            method=_text(echo, "method"),
            step=_text(echo, "step"),
            round=_integer(echo, "round", minimum=0),
            samples=_integer(metrics, "num-examples"),
            loss=_number(metrics, "loss"),
            seconds=_number(metrics, "seconds"),
            peak_rss_bytes=_integer(metrics, "peak-rss-bytes"),
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
        echo, metrics = _config(content, "echo"), _metrics(content)
        _require_schema(echo)
        accuracy, samples = _number(metrics, "accuracy"), _integer(metrics, "num-examples")
        if not 0 <= accuracy <= 1 or samples < 1:
            raise MessageError(f"an accuracy of {accuracy} over {samples} images is impossible")
        return cls(_integer(echo, "round", minimum=0), _number(metrics, "loss"), accuracy, samples)


def content_bytes(content: RecordDict) -> int:
    """Bytes of a message's content: the arrays' data, and all names and values; nothing is serialised to count them."""
    return sum(len(name) + _record_bytes(record) for name, record in content.items())


def encode_arrays(arrays: Arrays, shared: ArrayRecord | None = None) -> ArrayRecord:
    """Arrays as a message carries them: little-endian and contiguous, each of one of DTYPES.

    With those of a `shared` record, which are not copied; without any of its own it is that record.
    """
    if shared is not None and not arrays:
        return shared
    encoded = ArrayRecord()
    for name, array in (shared or {}).items():
        encoded[name] = array
    for name, values in arrays.items():
        little = np.asarray(values, dtype=values.dtype.newbyteorder("<"), order="C")
        if little.dtype.str not in DTYPES:
            raise ValueError(f"{name} has the type {values.dtype}; those that travel are {', '.join(DTYPES)}")
        encoded[name] = FlowerArray(little)
    return encoded


def _record_bytes(record: object) -> int:
    if isinstance(record, ArrayRecord):
        return sum(
            len(name) + len(array.data) + len(array.dtype) + 8 * len(array.shape) for name, array in record.items()
        )
    if isinstance(record, ConfigRecord | MetricRecord):
        return sum(len(key) + _value_bytes(value) for key, value in record.items())
    return 0


def _value_bytes(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list):
        return sum(map(_value_bytes, value))
    return 8


def _arrays(content: RecordDict) -> ArrayRecord:
    record = content.get("arrays")
    if not isinstance(record, ArrayRecord) or len(content.array_records) != 1:
        raise MessageError("the message must carry one array record, named 'arrays'")
    return record


def _decode_array(name: str, array: FlowerArray, spec: ArraySpec | None, rows: int) -> tuple[Array, int | None]:
    """The values and their number of rows; without a spec any of DTYPES in any shape."""
    # numpy.load would also open zip archives, ignore trailing bytes and allocate whatever the header claims
    stream = BytesIO(array.data)
    try:
        version = npy.read_magic(stream)
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
    except Exception as error:  # a malformed header can raise almost anything
        raise MessageError(f"{name!r:.60} cannot be read: {error!s:.200}") from None
    if version != (1, 0) or fortran or dtype.str not in DTYPES:
        raise MessageError(f"{name!r:.60} must be one of {', '.join(DTYPES)} in C order, not {dtype!s:.40}")
    if any(size < 0 for size in shape):
        raise MessageError(f"{name!r:.60} has the impossible shape {shape!s:.60}")
    if array.dtype != dtype.name or tuple(array.shape) != shape:
        raise MessageError(f"{name!r:.60} says {array.dtype!s:.40} of {array.shape!s:.60} but holds {dtype} of {shape}")
    found = None if spec is None else spec.check_form(name, dtype.str, shape, rows)
    size = math.prod(shape) * dtype.itemsize
    if len(array.data) - stream.tell() != size:
        raise MessageError(f"{name!r:.60} takes {size} bytes, not {len(array.data) - stream.tell()}")
    return np.frombuffer(array.data, dtype=dtype, offset=stream.tell()).reshape(shape).copy(), found


def _config(content: RecordDict, name: str) -> ConfigRecord:
    record = content.get(name)
    if not isinstance(record, ConfigRecord):
        raise MessageError(f"the message has no {name!r} record")
    return record


def _require_schema(values: ConfigRecord) -> None:
    if _integer(values, "schema") != SCHEMA:
        raise MessageError(f"the other side speaks schema {values['schema']!r}, this one {SCHEMA}")


def _metrics(content: RecordDict) -> MetricRecord:
    record = content.get("result")
    if not isinstance(record, MetricRecord):
        raise MessageError("the reply has no 'result' record")
    return record


def _integer(values: Any, key: str, minimum: int | None = None) -> int:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise MessageError(f"{key} must be a whole number, not {value!r:.60}")
    if minimum is not None and value < minimum:
        raise MessageError(f"{key} must be at least {minimum}, not {value}")
    return value


def _number(values: Any, key: str, minimum: float | None = None) -> float:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MessageError(f"{key} must be a finite number, not {value!r:.60}")
    if minimum is not None and value < minimum:
        raise MessageError(f"{key} must be at least {minimum:g}, not {value}")
    if abs(value) > LARGEST_NUMBER:
        raise MessageError(f"{key} must be at most {LARGEST_NUMBER:g}, not {value}")
    return float(value)


def _latency(values: Any) -> LatencyBound | None:
    """The bound on latency of a report; its shares are checked by itself."""
    milliseconds, shares = _number(values, "latency-ms", minimum=0.0), values.get("latency-shares")
    if milliseconds == 0 and shares == []:
        return None
    if not isinstance(shares, list) or len(shares) != len(COUNTED):
        raise MessageError(f"latency-shares must be {len(COUNTED)} numbers")
    if not all(isinstance(share, float) for share in shares):
        raise MessageError("latency-shares must be numbers")
    return LatencyBound(milliseconds, tuple(shares))


def _text(values: Any, key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise MessageError(f"{key} must be text, not {value!r:.60}")
    return value
