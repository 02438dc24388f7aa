"""One writer per run folder: a lock with an owner and a heartbeat.

The operating system holds the lock and gives it up with the process, however that ends, so what a killed run leaves is
free at once. The file says who the owner is; while it lives it is touched every few seconds. That heartbeat decides
where the lock of another machine cannot be seen, as on some network drives, and on systems without `fcntl`.
"""

import json
import os
import platform
import shlex
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "run.lock"
BEAT_SECONDS = 5.0
DEAD_AFTER_SECONDS = 60.0
WATCH_SECONDS = 2.5 * BEAT_SECONDS
_LARGEST_OWNER = 4096


class RunLock:
    """The right to write below `folder`, held from construction until `release` or the end of the process.

    Raises CheckpointError that names the owner if a living process holds it, and OSError if the folder cannot be
    written. Nobody waits: the second run is refused.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._descriptor = _take(self.path)
        owner = {
            "pid": os.getpid(),
            "host": platform.node(),
            "boot": _boot(),
            "command": shlex.join(sys.argv)[:1000],
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)  # who was there before has been read
        os.write(self._descriptor, json.dumps(owner).encode())
        self._released = threading.Event()
        self._pid = os.getpid()
        beat = threading.Thread(target=_beat, args=(weakref.ref(self), self.path, self._released), daemon=True)
        beat.start()

    def require(self) -> None:
        """Raise CheckpointError if the folder has vanished, or the lock in it is no longer this one."""
        if not _is_still_at(self._descriptor, self.path):
            raise CheckpointError(
                f"the run folder {self.path.parent} was removed, moved or replaced while the run went on; "
                "put it back and resume, or begin anew"
            )

    def release(self) -> None:
        """Let the next one in; a second call does nothing."""
        if self._released.is_set():
            return
        self._released.set()
        # not in a child that was forked off, and not the lock of who came after the folder had been replaced
        own = self._pid == os.getpid() and _is_still_at(self._descriptor, self.path)
        if fcntl is None:  # Windows, where no open file can be removed: if others have it open too, it names nobody
            if own:
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
        if own:
            with suppress(OSError):
                self.path.unlink()
        if fcntl is not None:  # locked until it is removed, or it might be another's by then
            os.close(self._descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_released"):
            self.release()


def _take(path: Path) -> int:
    """A descriptor of the file that holds the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owner = _owner(descriptor)
            if owner and _lives_elsewhere(owner, path):
                raise _in_use(path, owner)
            if not _is_still_at(descriptor, path):  # its owner has just removed it
                os.close(descriptor)
                continue
            return descriptor
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise _in_use(path, owner) from None
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise


def _is_still_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def _owner(descriptor: int) -> dict[str, Any]:
    """Who wrote the file; nobody if it is empty or damaged."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        owner = json.loads(os.read(descriptor, _LARGEST_OWNER))
    except (ValueError, RecursionError, OSError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _lives_elsewhere(owner: dict[str, Any], path: Path) -> bool:
    """Whether the heartbeat of an owner that this system's lock does not show is fresh.

    Both times are the file system's, for the clocks of two machines may differ. A heartbeat that is old, or of a time
    to come, is watched before its owner is taken for dead: a clock may have been set meanwhile.
    """
    if fcntl is not None and owner.get("boot") == _boot():
        return False
    with suppress(FileNotFoundError):  # its owner has just removed it
        last = _last_beat(path)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".now.") as probe:
            age = os.stat(probe.name).st_mtime - last
        if 0 <= age < DEAD_AFTER_SECONDS:
            return True
        time.sleep(WATCH_SECONDS)
        return _last_beat(path) != last
    return False


def _last_beat(path: Path) -> float:
    with path.open("rb") as file:  # opened, so that a network drive asks its server
        return os.fstat(file.fileno()).st_mtime


def _in_use(path: Path, owner: dict[str, Any]) -> CheckpointError:
    who = "another process"
    if isinstance(owner.get("pid"), int):
        who = f"process {owner['pid']} on {str(owner.get('host', ''))!r} since {str(owner.get('since', ''))!r}"
    return CheckpointError(
        f"{path.parent} is in use by {who}: wait until that run has ended, or end it, or choose another folder"
    )


def _boot() -> str:
    """What names this running system, whatever a container calls itself."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


def _beat(lock: "weakref.ref[RunLock]", path: Path, released: threading.Event) -> None:
    while not released.wait(BEAT_SECONDS) and lock() is not None:
        with suppress(OSError):  # a folder that has vanished is for its writer to report
            os.utime(path)
