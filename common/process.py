"""What one process uses of the machine, what asks it to end, and its end together with its parent."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType


def peak_rss_bytes() -> int:
    """Largest resident set size of this process so far, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def on_signals(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> None:
    """Have `handler` called for each of these signals that this process was not started to ignore, as nohup does."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end_with(parent: int) -> None:
    """End this process, which may be computing, at most a second after its parent, the process `parent`, has ended."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
