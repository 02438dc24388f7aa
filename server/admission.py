"""Admission: what a reply must be before it may touch a model. Everything in it was written by another machine."""

import re
import unicodedata

import numpy as np
from flwr.app import Message
from flwr.common.constant import ErrorCode

from common.errors import MessageError
from common.messages import EvaluateResult, Task, TrainResult
from common.weights import Layout, Vector
from server.devices import Device

NORM_FACTOR = 1000.0
"""A model whose Euclidean norm grew by more than this in one round is not the result of training."""

REASON_CHARACTERS = 200
LATE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


def admit(reply: Message, task: Task, device: Device) -> TrainResult:
    """The result in `reply` to `task`; raises MessageError for a reply that must not count.

    Refused are error replies, other rounds (a replay), other architectures, other types or shapes, values that are not
    finite or impossibly large, negative variances, and numbers of samples beyond what the device registered.
    """
    _require_content(reply)
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
    _require_content(reply)
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
    # a deployed SuperNode writes <class 'ValueError'>:<'message'>
    wrapped = re.fullmatch(r"<class '(?:[\w.]*\.)?(\w+)'>:<'(.*)'>", text, re.DOTALL)
    kind, text = (f"{wrapped[1]}: ", wrapped[2]) if wrapped else ("", text)
    lines = [line.strip() for line in re.split(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]", text) if line.strip()]
    if len(lines) > 1:
        kind = ""  # a traceback, whose last line names the exception itself
    last = "".join(c for c in lines[-1] if unicodedata.category(c)[0] != "C") if lines else ""
    return (kind + last)[:REASON_CHARACTERS] or "the device gave no reason"


def _require_content(reply: Message) -> None:
    if reply.has_error():
        raise MessageError(one_line(reply.error.reason))


def _check_values(weights: Vector, task: Task) -> None:
    if not np.isfinite(weights).all():
        raise MessageError("its weights are not finite")
    limit = NORM_FACTOR * max(1.0, _norm(task.weights))
    if _norm(weights) > limit:
        raise MessageError(f"its weights have norm {_norm(weights):.3g}, above the limit of {limit:.3g}")
    layout = Layout.of(task.architecture)
    start = 0
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        stop = start + int(np.prod(shape))
        if name.endswith("running_var") and (weights[start:stop] < 0).any():
            raise MessageError(f"{name} holds a negative variance")
        start = stop


def _norm(vector: Vector) -> float:
    return float(np.linalg.norm(vector.astype(np.float64)))
