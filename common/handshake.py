"""The handshake on the wire: what the server says of its code and its run, and what a device answers of itself.

Every `decode` validates what it is given, as those of `common.messages` do.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from flwr.app import ConfigRecord, RecordDict

from common.budget import DeviceBudget, LocalTraining
from common.device_names import DEVICE_NAME
from common.errors import BudgetError, MessageError
from common.message_fields import (
    LARGEST_NUMBER,
    SCHEMA,
    config_record,
    read_class_names,
    read_integer,
    read_number,
    read_text,
    require_schema,
)
from common.rates import COUNTED, LatencyBound
from common.version import version

HANDSHAKE = "query.handshake"
"""The type of its messages."""

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
        return cls(SCHEMA, code_fingerprint(), version(), tuple(class_names))

    def encode(self) -> RecordDict:
        """As a query's content."""
        values: dict[str, Any] = {"schema": self.schema, "fingerprint": self.fingerprint, "version": self.version}
        return RecordDict({"hello": ConfigRecord({**values, "class-names": list(self.class_names)})})

    @classmethod
    def decode(cls, content: RecordDict) -> Self:
        """From a query's content."""
        values = config_record(content, "hello")
        fingerprint, theirs = read_text(values, "fingerprint"), read_text(values, "version")
        return cls(read_integer(values, "schema"), fingerprint, theirs, read_class_names(values))

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
        require_schema(values)
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
