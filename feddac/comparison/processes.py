"""The processes of runs: each a `feddac simulate` of its own, which ends when whoever started it does."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from feddac.endings import REMEDY
from feddac.parent import PARENT
from server.run_folder import RunFolder
from simulation.environment import CODE_ROOT

OUTPUT = "output.txt"
"""What the process of a run printed, in its run folder."""

GRACE_SECONDS = 10.0
"""So long has a process that was asked to end, to end tidily."""

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""What no process outlives; Windows has no SIGKILL."""


def start_run(folder: RunFolder, engine: str, workers: int) -> "subprocess.Popen[bytes]":
    """Go on with the run in `folder`; one that has only its settings goes on from the beginning."""
    # -P: the working folder may have packages of the same names.
    command = [sys.executable, "-P", "-m", "feddac.cli.main", "simulate", "--resume", str(folder.path.resolve())]
    command += ["--engine", engine, "--workers", str(workers)]
    path = os.pathsep.join(filter(None, (str(CODE_ROOT), os.environ.get("PYTHONPATH"))))
    with open(folder.path / OUTPUT, "wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", PARENT: str(os.getpid())},
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others.
        )


@contextmanager
def ended_at_exit(active: "Collection[subprocess.Popen[bytes]]") -> Iterator[None]:
    """End the processes that are still active when the block is left, also by SIGTERM; their runs can be resumed.

    In another thread than the main one, which alone can handle signals, SIGTERM is left to whoever has that one.
    """
    handles = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _interrupt) if handles else None
    try:
        yield
    finally:
        if handles:
            signal.signal(signal.SIGTERM, before)
        for process in active:
            send(process, signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in active:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                deadline = 0.0
            send(process, KILL)  # also what the process itself may have left behind
            process.wait()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def send(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to a run's process and whatever it has started; nothing happens if it is over.

    Windows has neither signals nor groups for this: the process is ended at once, and its run can be resumed.
    """
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        elif number == KILL:
            process.kill()
        else:
            process.terminate()
    except (ProcessLookupError, PermissionError):
        return


def reason_of(output: Path, code: int) -> str:
    """The last line that the process began with `Error:`, else its last line, else its exit code.

    Without the command that would work: a run with other settings than the plan's is none of its runs.
    """
    lines = [line.strip() for line in output.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    errors = [line.removeprefix("Error:").partition(REMEDY)[0].strip() for line in lines if line.startswith("Error:")]
    return (errors or lines or [f"ended with exit code {code}"])[-1]
