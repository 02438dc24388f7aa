"""Processes of a local federation that its `feddac up` has not ended: how they are found, and how they end.

Every process of a federation carries the federation's folder in its environment (FLWR_HOME), and passes it on to what
it starts, so no list has to be kept, and a process of somebody else is never mistaken for one.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_PROCESSES = Path("/proc")
_POLL_SECONDS = 0.1


def find(folder: Path) -> set[int]:
    """The ids of living processes of the federation whose files lie in `folder`, save this process."""
    mark = f"FLWR_HOME={folder.resolve()}{os.sep}"
    found = _from_proc(mark) if _PROCESSES.is_dir() else _from_ps(mark)
    return found - {os.getpid()}


def end(folder: Path, grace: float) -> int:
    """End them, asked first and forced after `grace` seconds; returns how many there were."""
    first = find(folder)
    _signal(first, signal.SIGTERM)
    _signal(first, signal.SIGCONT)  # one that was stopped would not see the other
    deadline = time.monotonic() + grace
    while find(folder) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    last_chance = time.monotonic() + grace
    while (left := find(folder)) and time.monotonic() < last_chance:
        _signal(left, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    return len(first)


def _signal(processes: set[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)


def _from_proc(mark: str) -> set[int]:
    wanted, found = mark.encode(), set()
    for entry in _PROCESSES.glob("[0-9]*/environ"):
        with suppress(OSError):  # gone meanwhile, or another user's; a zombie has no environment
            if any(variable.startswith(wanted) for variable in entry.read_bytes().split(b"\0")):
                found.add(int(entry.parent.name))
    return found


def _from_ps(mark: str) -> set[int]:
    listing = subprocess.run(
        ["ps", "-axwwE", "-o", "pid=,command="], capture_output=True, text=True, check=False
    ).stdout
    return {int(line.split(None, 1)[0]) for line in listing.splitlines() if mark in line}
