"""Admission: what a reply must be before it may touch a model. Everything in it was written by another machine."""

import re

import numpy as np
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from common.errors import MessageError
from common.layout import Vector
from common.messages import EvaluateResult, Task, TrainResult, content_bytes
from server.devices import Device

NORM_FACTOR = 1000.0
"""A model whose Euclidean norm grew by more than this in one round is not the result of training."""

SPARE_BYTES = 64 * 2**10
"""What a reply may take beside the weights: far more than any device of ours needs for its figures."""

REASON_CHARACTERS = 200
_READ_CHARACTERS = 20_000
LATE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


def admit(reply: Message, task: Task, device: Device) -> TrainResult:
    """The result in `reply` to `task`; raises MessageError for a reply that must not count.

    Refused are error replies, other rounds (a replay), other architectures, other types or shapes, values that are not
    finite or impossibly large, negative variances, and numbers of samples beyond what the device registered.
    """
    require_content(reply, task.weights.nbytes)
    result = TrainResult.decode(reply.content, task.architecture)
    if result.round != task.round:
        raise MessageError(f"the reply is for round {result.round}, not {task.round}")
    if not 1 <= result.samples <= device.report.samples:
        raise MessageError(f"it claims {result.samples} samples, but registered {device.report.samples}")
    if result.seconds < 0 or result.peak_rss_bytes < 0:
        raise MessageError("its time or memory is negative")
    _check_values(result.weights, task)
    return result


def admit_evaluation(reply: Message, task: Task, device: Device) -> EvaluateResult:
    """The score in `reply` to `task`; raises MessageError for a reply that must not count."""
    require_content(reply, 0)
    result = EvaluateResult.decode(reply.content)
    if result.round != task.round:
        raise MessageError(f"the reply is for round {result.round}, not {task.round}")
    if result.samples > device.report.samples:
        raise MessageError(f"it claims {result.samples} held-out samples, but registered {device.report.samples}")
    return result


def status_of(reply: Message) -> str:
    """What became of a device whose reply was not admitted: late, failed (an error reply) or rejected."""
    if not reply.has_error():
        return "rejected"
    return "late" if reply.error.code in LATE else "failed"


def one_line(text: str | None) -> str:
    """The gist of an error reply's reason: its last line, without Flower's wrapping and control characters."""
    text = (text or "").strip()
    text = text if len(text) <= _READ_CHARACTERS else text[-_READ_CHARACTERS:]
    # a deployed SuperNode writes <class 'ValueError'>:<'message'>
    wrapped = re.fullmatch(r"<class '(?:[\w.]*\.)?(\w+)'>:<'(.*)'>", text, re.DOTALL)
    kind, text = (f"{wrapped[1]}: ", wrapped[2]) if wrapped else ("", text)
    lines = [line.strip() for line in re.split(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", text) if line.strip()]
    if len(lines) > 1:
        kind = ""  # a traceback, whose last line names the exception itself
    # of characters that are not printable, spaces of all kinds become plain ones and the others go
    printable = (" " if c.isspace() else c for c in (lines[-1] if lines else "") if c.isspace() or c.isprintable())
    last = "".join(printable).strip()
    return (kind + last)[:REASON_CHARACTERS] or "the device gave no reason"


def require_content(reply: Message, weights_bytes: int) -> None:
    """Raise MessageError for an error reply, and for one with more than `weights_bytes` of weights and some figures."""
    if reply.has_error():
        raise MessageError(one_line(reply.error.reason))
    if not isinstance(reply.content, RecordDict):
        raise MessageError("the reply carries no records")
    size, limit = content_bytes(reply.content), weights_bytes + SPARE_BYTES
    if size > limit:
        raise MessageError(f"the reply takes {size} bytes, above the limit of {limit}")


def _check_values(weights: Vector, task: Task) -> None:
    if not np.isfinite(weights).all():
        raise MessageError("its weights are not finite")
    limit = NORM_FACTOR * max(1.0, _norm(task.weights))
    if _norm(weights) > limit:
        raise MessageError(f"its weights have norm {_norm(weights):.3g}, above the limit of {limit:.3g}")
    layout = task.architecture.layout
    start = 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        stop = start + int(np.prod(shape))
        if name.endswith("running_var") and (weights[start:stop] < 0).any():
            raise MessageError(f"{name} holds a negative variance")
        start = stop


def _norm(vector: Vector) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))
