"""The wire schema: what is in every query, train and evaluate message and in its reply. Version 1.

Client and server share nothing but this file. Every `decode` validates what it is given, because it comes from another
machine, and raises MessageError saying what was wrong; nothing is ever unpickled.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.lib import format as npy

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.device_names import DEVICE_NAME
from common.errors import ArchitectureError, BudgetError, MessageError
from common.layout import Layout, Vector

SCHEMA = 1
HANDSHAKE = "query.handshake"
LARGEST_DEVICE_SAMPLES = 2**40


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
    """A device's answer to the handshake: who it is, what it can afford, how many training images it has."""

    name: str
    profile: str
    partition: int
    samples: int
    budget: DeviceBudget

    def encode(self) -> RecordDict:
        """As a reply's content; 0 stands for a bound that the device does not have."""
        budget = self.budget
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "name": self.name,
            "profile": self.profile,
            "partition": self.partition,
            "samples": self.samples,
            "macs": budget.macs or 0,
            "params": budget.params or 0,
            "peak-memory-bytes": budget.peak_memory_bytes or 0,
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
        bounds = []
        for key in ("macs", "params", "peak-memory-bytes"):
            bound = _integer(values, key)
            if not 0 <= bound < 2**62:
                raise MessageError(f"{name} reports {key} = {bound}")
            bounds.append(bound or None)
        try:
            budget = DeviceBudget(*bounds)
        except BudgetError as error:
            raise MessageError(f"{name}: {error}") from None
        return cls(name, profile, _integer(values, "partition", minimum=0), samples, budget)


@dataclass(frozen=True)
class Task:
    """What the server asks of a device: the model, and for training its hyper-parameters.

    `weights` has shape (architecture.layout.size,). An evaluation task uses only the model and `batch_size`.
    `masked_loss` is the setting of that name; in training, convolutions' outputs are divided by `activation_scale`,
    and with `frozen_norms` batch norms use the running statistics they came with.
    """

    round: int
    architecture: Architecture
    weights: Vector
    seed: int = 0
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    max_gradient_norm: float = 0.0
    masked_loss: str = "none"
    activation_scale: float = 1.0
    frozen_norms: bool = False
    deadline_seconds: float = 600.0

    def encode(self, weights: ArrayRecord | None = None) -> RecordDict:
        """As a train or evaluate message's content; `weights` are these weights encoded already, to be shared."""
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "round": self.round,
            "architecture": self.architecture.to_json(),
            "layout": self.architecture.layout.hash,
            "seed": self.seed,
            "epochs": self.epochs,
            "batch-size": self.batch_size,
            "learning-rate": self.learning_rate,
            "momentum": self.momentum,
            "weight-decay": self.weight_decay,
            "max-gradient-norm": self.max_gradient_norm,
            "masked-loss": self.masked_loss,
            "activation-scale": self.activation_scale,
            "frozen-norms": int(self.frozen_norms),
            "deadline-seconds": self.deadline_seconds,
        }
        record = encode_weights(self.weights) if weights is None else weights
        return RecordDict({"weights": record, "task": ConfigRecord(values)})

    @classmethod
    def decode(cls, content: RecordDict) -> Self:
        """From a message's content; raises MessageError."""
        values = _config(content, "task")
        _require_schema(values)
        try:
            architecture = Architecture.from_json(_text(values, "architecture"))
        except ArchitectureError as error:
            raise MessageError(str(error)) from None
        layout = architecture.layout
        if _text(values, "layout") != layout.hash:
            raise MessageError("the architecture's layout differs between server and device")
        return cls(
            round=_integer(values, "round", minimum=0),
            architecture=architecture,
            weights=_decode_weights(content, layout),
            seed=_integer(values, "seed", minimum=0),
            epochs=_integer(values, "epochs", minimum=0),
            batch_size=_integer(values, "batch-size", minimum=1),
            learning_rate=_number(values, "learning-rate", minimum=0),
            momentum=_number(values, "momentum", minimum=0),
            weight_decay=_number(values, "weight-decay", minimum=0),
            max_gradient_norm=_number(values, "max-gradient-norm", minimum=0),
            masked_loss=_text(values, "masked-loss"),
            activation_scale=_number(values, "activation-scale", minimum=0),
            frozen_norms=_integer(values, "frozen-norms", minimum=0) == 1,
            deadline_seconds=_number(values, "deadline-seconds", minimum=0),
        )


@dataclass(frozen=True)
class TrainResult:
    """A device's trained weights and what it took: mean loss of the last epoch, seconds, peak resident bytes."""

    round: int
    layout_hash: str
    weights: Vector
    samples: int
    loss: float
    seconds: float
    peak_rss_bytes: int

    def encode(self) -> RecordDict:
        """As a train reply's content."""
        echo: dict[str, Any] = {"schema": SCHEMA, "round": self.round, "layout": self.layout_hash}
        metrics: dict[str, Any] = {
            "num-examples": self.samples,
            "loss": self.loss,
            "seconds": self.seconds,
            "peak-rss-bytes": self.peak_rss_bytes,
        }
        weights = encode_weights(self.weights)
        return RecordDict({"weights": weights, "result": MetricRecord(metrics), "echo": ConfigRecord(echo)})

    @classmethod
    def decode(cls, content: RecordDict, architecture: Architecture) -> Self:
        """From a train reply's content, for the architecture that was sent; raises MessageError.

        Only form is checked here (types, shape, layout); whether the values are sane is the server's admission.
        """
        echo, metrics = _config(content, "echo"), _metrics(content)
        _require_schema(echo)
        layout = architecture.layout
        if _text(echo, "layout") != layout.hash:
            raise MessageError("the reply is for another architecture")
        return cls(
            round=_integer(echo, "round", minimum=0),
            layout_hash=layout.hash,
            weights=_decode_weights(content, layout),
            samples=_integer(metrics, "num-examples"),
            loss=_number(metrics, "loss"),
            seconds=_number(metrics, "seconds"),
            peak_rss_bytes=_integer(metrics, "peak-rss-bytes"),
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
    """Serialised size of a message's records, in bytes."""
    # ConfigRecord.count_bytes raises on an empty text or list, which a stranger may well have sent
    return sum(
        len(record.deflate()) if isinstance(record, ConfigRecord) else record.count_bytes()
        for record in content.values()
    )


def encode_weights(weights: Vector) -> ArrayRecord:
    """A flat vector as the one array record of a message."""
    return ArrayRecord({"weights": Array(np.ascontiguousarray(weights, dtype="<f4"))})


def _decode_weights(content: RecordDict, layout: Layout) -> Vector:
    record = content.get("weights")
    if not isinstance(record, ArrayRecord) or list(record) != ["weights"]:
        raise MessageError("the message must carry one array record with one array named 'weights'")
    array = record["weights"]
    if array.dtype != "float32" or tuple(array.shape) != (layout.size,):
        raise MessageError(
            f"weights must be float32 of shape ({layout.size},), not {array.dtype!s:.40} of {array.shape!s:.60}"
        )
    # numpy.load would also open zip archives, ignore trailing bytes and allocate whatever the header claims
    stream = BytesIO(array.data)
    try:
        version = npy.read_magic(stream)
        shape, _, dtype = npy.read_array_header_1_0(stream)
    except Exception as error:  # a malformed header can raise almost anything
        raise MessageError(f"the weights cannot be read: {error!s:.200}") from None
    if version != (1, 0) or dtype != np.dtype("<f4") or shape != (layout.size,):
        raise MessageError(
            f"weights must be little-endian float32 of shape ({layout.size},), not {dtype!s:.40} of {shape!s:.60}"
        )
    if len(array.data) - stream.tell() != 4 * layout.size:
        raise MessageError(f"weights take {4 * layout.size} bytes, not {len(array.data) - stream.tell()}")
    return np.frombuffer(array.data, dtype="<f4", offset=stream.tell()).copy()


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
    return float(value)


def _text(values: Any, key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        raise MessageError(f"{key} must be text, not {value!r:.60}")
    return value
