"""How long a fuzzed command may compute, and what it takes: processor time and counts, no clock on the wall."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

CPU_SECONDS = 6.0
IDLE_SECONDS = 60.0
LOOK_SECONDS, NOTHING_SECONDS = 0.2, 0.05
HANGS = -1


class StillAtWork(KeyboardInterrupt):
    """Ctrl-C after CPU_SECONDS."""


class Hangs(KeyboardInterrupt):
    """Ctrl-C after IDLE_SECONDS in which nothing was computed."""


@contextlib.contextmanager
def limit() -> Iterator[None]:
    """Ctrl-C once CPU_SECONDS have been computed here and in child processes, or none for long."""
    over, hangs = threading.Event(), False

    def interrupt(number: int, frame: object) -> None:
        raise Hangs if hangs else StillAtWork

    def watch() -> None:
        nonlocal hangs
        start = last = processor_seconds()
        looks = 0
        while not over.wait(LOOK_SECONDS):
            now = processor_seconds()
            looks, last = (0, now) if now > last + NOTHING_SECONDS else (looks + 1, last)
            hangs = looks * LOOK_SECONDS > IDLE_SECONDS
            if hangs or now - start > CPU_SECONDS:
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    before = signal.signal(signal.SIGUSR1, interrupt)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, before)


def processor_seconds() -> float:
    """What this process and its living children have computed so far."""
    ticks = 0
    for process in (os.getpid(), *children()):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def children() -> list[int]:
    """The living children of this process, by id."""
    found: list[str] = []
    for one in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            found += one.read_text().split()
    return [int(word) for word in found if _is_alive(word)]


def _is_alive(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def reset_peak() -> int:
    """Begin to watch the peak of this process's memory; returns what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
