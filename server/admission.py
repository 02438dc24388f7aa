"""Admission: what a reply must be before it may touch a model. Everything in it was written by another machine."""

import re

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from common.errors import MessageError
from common.handshake import LARGEST_DEVICE_SAMPLES
from common.message_arrays import content_bytes
from common.messages import EvaluateResult, Result
from server.devices import Device
from server.steps import Step

SPARE_BYTES = 64 * 2**10
"""What a reply may take beside the arrays: far more than any device of ours needs for its figures."""

REASON_CHARACTERS = 200
_READ_CHARACTERS = 20_000
LATE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


def admit(
    reply: Message, step: Step, method: str, number: int, device: Device, most_rows: int = LARGEST_DEVICE_SAMPLES
) -> Result:
    """The result of a step in `reply`; raises MessageError for a reply that must not count.

    Refused are error replies, other methods, steps or rounds (a replay), other arrays, types or shapes than the step
    asked for, values that are not finite or out of range, numbers of samples beyond what the device registered, and
    any rows of a device that registered more than `most_rows`, which would be bound by nothing but its own word.
    """
    registered = device.report.samples
    if registered > most_rows and step.largest_reply(1) > step.largest_reply(0) and not reply.has_error():
        raise MessageError(
            f"it registered {registered} images, but one device may answer for {most_rows} at most: three times the "
            "median of all devices, or the run's own training images"
        )
    require_content(reply, step.largest_reply(registered))
    result = Result.decode(reply.content, step.reply, registered)
    if (result.method, result.step) != (method, step.name):
        raise MessageError(f"the reply is for step {result.step!r:.40} of {result.method!r:.40}, not {step.name}")
    if result.round != number:
        raise MessageError(f"the reply is for round {result.round}, not {number}")
    if not 1 <= result.samples <= registered:
        raise MessageError(f"it claims {result.samples} samples, but registered {registered}")
    if result.seconds < 0 or result.peak_rss_bytes < 0:
        raise MessageError("its time or memory is negative")
    return result


def admit_evaluation(reply: Message, number: int, device: Device) -> EvaluateResult:
    """The score in `reply`; raises MessageError for a reply that must not count."""
    require_content(reply, 0)
    result = EvaluateResult.decode(reply.content)
    if result.round != number:
        raise MessageError(f"the reply is for round {result.round}, not {number}")
    if result.samples > device.report.held_out:
        raise MessageError(f"it claims {result.samples} held-out images, but registered {device.report.held_out}")
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


def require_content(reply: Message, arrays_bytes: int) -> None:
    """Raise MessageError for an error reply, and for one with more than `arrays_bytes` of arrays and some figures."""
    if reply.has_error():
        raise MessageError(one_line(reply.error.reason))
    if not isinstance(reply.content, RecordDict):
        raise MessageError("the reply carries no records")
    size, limit = content_bytes(reply.content), arrays_bytes + SPARE_BYTES
    if size > limit:
        raise MessageError(f"the reply takes {size} bytes, above the limit of {limit}")
