"""The wire schema: what is in every train and evaluate message and in its reply.

What client and server say to each other is here, in `handshake`, in the tools of both (`message_arrays`,
`message_fields`) and in the methods' contracts (`common.methods`). Every `decode` validates what it is given, because
it comes from another machine, and raises MessageError saying what was wrong; nothing is ever unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from common.arrays import Array, Arrays, ArraySpec, Vector
from common.errors import ArchitectureError, MessageError
from common.message_arrays import array_record, decode_array, encode_arrays
from common.message_fields import (
    SCHEMA,
    config_record,
    metric_record,
    read_class_names,
    read_integer,
    read_number,
    read_text,
    require_schema,
)
from common.network import Network
from common.settings import Scalar, Settings

Group = TypeVar("Group", bound=Settings)

ORDER = "order."
"""What the keys of a task's order begin with on the wire."""
WEIGHTS = "weights"
"""The array that holds a network's weights as one flat float32 vector."""


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
        require_schema(values)
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
        require_schema(echo)
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
        require_schema(echo)
        accuracy, samples = read_number(metrics, "accuracy"), read_integer(metrics, "num-examples")
        if not 0 <= accuracy <= 1 or samples < 1:
            raise MessageError(f"an accuracy of {accuracy} over {samples} images is impossible")
        return cls(read_integer(echo, "round", minimum=0), read_number(metrics, "loss"), accuracy, samples)
