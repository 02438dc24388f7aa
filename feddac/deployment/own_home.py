"""A FLWR_HOME for one SuperNode and one start of it, within the user's.

Flower unpacks the app of a run into FLWR_HOME, and takes a folder of its name for the whole app from then on: what was
cut short there, by a power cut or a full disk, breaks every later message. A new folder has nothing of that kind, and
nobody else's app is removed under a run that goes on.
"""

import fcntl
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

_FOLDER = "feddac-supernodes"


class OwnHome:
    """The folder `path`, a context manager that removes it; construction removes those of SuperNodes that were killed.

    A living one holds a lock on its own. Raises OSError where FLWR_HOME cannot be written.
    """

    def __init__(self) -> None:
        user = os.environ.get("FLWR_HOME")
        folder = (Path(user) if user else Path.home() / ".flwr").resolve() / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        everybody = _lock(folder, wait=True)
        try:
            for other in folder.iterdir():
                lock = _lock(other, wait=False)
                if lock is not None:
                    shutil.rmtree(other, ignore_errors=True)
                    os.close(lock)
            self.path = folder / f"{os.getpid()}-{time.time_ns()}"
            self.path.mkdir(mode=0o700)
            self._lock = _lock(self.path, wait=True)
        finally:
            if everybody is not None:
                os.close(everybody)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


def _lock(folder: Path, wait: bool) -> int | None:
    """A descriptor that holds the lock of `folder` until it is closed; None if it is taken or cannot be had."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    return None
