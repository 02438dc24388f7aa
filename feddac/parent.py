"""A command that another one has started ends with it, however that one ended: `kill -9` leaves nothing computing."""

import os
import signal
import threading
import time

PARENT = "FEDDAC_ENDS_WITH"
"""In the environment of a command: the process id of whoever started it, if it is to end with it."""

_POLL_SECONDS = 1.0
_GRACE_SECONDS = 10.0


def end_with_parent() -> None:
    """Watch the parent from now on, if the environment says so. This process must be the leader of its group."""
    parent = os.environ.pop(PARENT, "")
    if parent.isdigit():
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)  # which ends a command tidily, so that its run can be resumed
    time.sleep(_GRACE_SECONDS)
    os.killpg(os.getpid(), signal.SIGKILL)
