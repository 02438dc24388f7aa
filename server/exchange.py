"""Send messages and take the replies one by one as they arrive."""

import time
from collections.abc import Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

POLL_SECONDS = 0.1


def exchange(grid: Grid, messages: Sequence[Message], timeout: float) -> Iterator[Message]:
    """Yield the reply to each message when it arrives, until all are answered or `timeout` seconds are over.

    Every message is answered at most once; a reply to none of them is dropped.
    """
    if not messages:
        return
    deadline = time.monotonic() + timeout
    waiting = {message_id for message_id in grid.push_messages(messages) if message_id}
    while waiting and time.monotonic() < deadline:
        arrived = list(grid.pull_messages(waiting))
        nothing_new = not arrived
        while arrived:
            reply = arrived.pop(0)  # so that a reply can be freed before the next one is looked at
            if reply.metadata.reply_to_message_id in waiting:
                waiting.remove(reply.metadata.reply_to_message_id)
                yield reply
        if nothing_new:
            time.sleep(POLL_SECONDS)


def time_to_live(timeout: float) -> float:
    """Seconds after which Flower may drop a message: just under the timeout, so that a late device is told about."""
    return timeout - min(1.0, 0.1 * timeout)
