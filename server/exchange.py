"""Send messages and take the replies one by one as they arrive."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

POLL_SECONDS = 0.1

UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, DecodeError)
"""What Flower raises when a reply's bytes make no message; a SuperLink that cannot be reached raises other errors."""


@runtime_checkable
class Forgetful(Protocol):
    """The grid of a simulation, which can withdraw messages; Flower's own cannot, theirs expire."""

    def forget(self, message_ids: Iterable[str]) -> None:
        """Nobody will ask for the replies to these messages."""


def exchange(grid: Grid, messages: Sequence[Message], timeout: float) -> Iterator[Message]:
    """Yield the reply to each message when it arrives, until all are answered or `timeout` seconds are over.

    Devices of a simulation wait for each other, and how long depends on the machine: there the time begins anew with
    every reply, so that no device is late because of others.

    Every message is answered at most once; a reply that cannot be read becomes an error reply. What is not answered by
    then, or when nobody takes replies any more, is withdrawn, so that no device does it before the next round's work.
    """
    deadline = time.monotonic() + timeout
    ids = grid.push_messages(messages) if messages else []
    simulated = isinstance(grid, Forgetful)
    waiting = {message_id: message for message_id, message in zip(ids, messages, strict=True) if message_id}
    try:
        while waiting and time.monotonic() < deadline:
            start = time.monotonic()
            nothing_new = True
            for reply in pull(grid, waiting):
                nothing_new = False
                del waiting[reply.metadata.reply_to_message_id]
                yield reply
                del reply  # so that it can be freed before the next one is fetched
                if simulated:
                    deadline = time.monotonic() + timeout
                elif time.monotonic() >= deadline:
                    return
            if nothing_new:
                pause_after(start)
    finally:
        if isinstance(grid, Forgetful):
            grid.forget(waiting)


def pause_after(start: float, longest: float = math.inf) -> None:
    """Let devices answer before the next look; `start` is when the last began, by the monotonic clock.

    With many devices a look at each takes long: then the pause is as long, up to `longest` seconds.
    """
    time.sleep(max(POLL_SECONDS, min(longest, time.monotonic() - start)))


def pull(grid: Grid, waiting: Mapping[str, Message]) -> Iterator[Message]:
    """The replies that have come to the messages `waiting`, by message id; at most one for each.

    They are fetched one at a time: then no more than one is in memory, one that cannot be read does not take the others
    with it, and what a reply answers is known from the question, not only from what its sender wrote into it.
    """
    for message_id, message in list(waiting.items()):
        try:
            replies = list(grid.pull_messages([message_id]))
            if replies and replies[0].metadata.reply_to_message_id != message_id:
                raise ValueError("it names another message")
        except UNREADABLE as error:
            reason = f"its reply cannot be read ({type(error).__name__}: {error})"
            replies = [Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)]
        yield from replies[:1]


def time_to_live(timeout: float) -> float:
    """Seconds after which Flower may drop a message: just under the timeout, so that a late device is told about."""
    return timeout - min(1.0, 0.1 * timeout)
