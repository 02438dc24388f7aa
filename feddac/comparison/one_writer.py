"""One command at a time works in a folder of runs, and none writes in a run that another process goes on with."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import CheckpointError, ConfigurationError
from server.run_folder import RunFolder
from server.run_lock import RunLock

RELEASE_SECONDS = 30.0
"""So long is waited for a process of an earlier command, which was killed, to leave its run folder."""

_POLL_SECONDS = 0.1


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Hold `out`, which is made where there is none, for one comparison or tuning.

    Raises ConfigurationError if it cannot be written, CheckpointError that names the other process that holds it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = RunLock(out)
    except OSError as error:
        raise ConfigurationError(f"cannot write in {out} ({error.strerror or error}): choose another --out") from None
    try:
        yield
    finally:
        lock.release()


def who_writes(folder: RunFolder) -> str:
    """Which process writes in the run's folder, or why nobody can, as one line; empty if it is free."""
    try:
        RunFolder(folder.path).__enter__().close()
    except CheckpointError as error:
        return str(error)
    return ""


def wait_until_free(folders: Iterable[RunFolder]) -> None:
    """Wait for processes of an earlier command to leave these run folders, RELEASE_SECONDS at most."""
    deadline = time.monotonic() + RELEASE_SECONDS
    for folder in folders:
        while who_writes(folder) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
