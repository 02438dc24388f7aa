"""A limit on how long a block of work may take."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from common.errors import FederationError


@contextmanager
def deadline(seconds: float, what: str) -> Iterator[Callable[[], None]]:
    """Raise FederationError "did not `what` within ... s" when the block takes longer than `seconds`.

    In a process's main thread an alarm interrupts the block wherever it is. Elsewhere, and on systems without alarms,
    the block must call the function it is given, which raises when the time is over. An alarm that was set before
    keeps its own time.
    """
    end = time.monotonic() + seconds

    def fail(signal_number: int = 0, frame: FrameType | None = None) -> None:
        raise FederationError(f"did not {what} within {seconds:g} s")

    def check() -> None:
        if time.monotonic() >= end:
            fail()

    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield check
        return
    outer_handler = signal.signal(signal.SIGALRM, fail)
    start = time.monotonic()
    outer_left, outer_interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
    try:
        yield check
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer_handler)
        if outer_left > 0:
            left = outer_left - (time.monotonic() - start)
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6), outer_interval)
