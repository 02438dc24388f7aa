"""A process that outlives `feddac up` by a moment, to end what that one started if it could not do so itself.

Its standard input is a pipe from `feddac up`. A line means that all is well and over; the end of the pipe without one
means that `feddac up` was killed.
"""

import os
import subprocess
import sys
from pathlib import Path

from feddac.deployment import leftovers
from simulation.environment import CODE_ROOT

_GRACE_SECONDS = 5.0
_SCRIPT = "import sys; sys.path.insert(0, sys.argv[1]); from feddac.deployment.keeper import watch; watch(sys.argv[2])"


class Keeper:
    """The keeper of the federation in `folder`, running from construction until `dismiss`."""

    def __init__(self, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "FLWR_HOME"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(CODE_ROOT), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for `feddac up`, which ends things in order
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def dismiss(self) -> None:
        """All processes have been ended in order."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"over\n")
            self._process.stdin.close()
        except OSError:  # it was killed
            pass
        self._process.wait()


def watch(folder: str) -> None:
    """Wait for the end of the pipe on standard input, and end the federation of `folder` unless it is over."""
    if not sys.stdin.buffer.readline():
        leftovers.end(Path(folder), _GRACE_SECONDS)
