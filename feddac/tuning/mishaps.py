"""Whether a trial's run was ended by what its settings have no part in: such a trial is no result, and is done again.

A run tells by its exit code, and in its last line that begins with `Error:`.
"""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from feddac.comparison.processes import reason_of
from feddac.endings import INTERRUPTED, ONCE_MENDED

_OF_THE_MACHINE = re.compile(
    r"cannot write|is in use by|was removed, moved or replaced|is damaged|"
    r"Ray stopped|Ray could not start|the Ray cluster at|nothing answers at --ray-address|"
    r"MemoryError|out of memory|can't allocate memory"
)


@dataclass(frozen=True)
class Mishap:
    """A trial that is still to be done, and why in one line."""

    method: str
    trial: int
    reason: str


def mishap_of(output: Path, code: int) -> str:
    """Why a run that ended with this exit code, negative for a signal, is to be done again; empty if it failed.

    `output` has what it printed.
    """
    if code < 0:
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was ended by signal {-code} ({signal.strsignal(-code)}){memory}"
    if code == INTERRUPTED:
        return "its process was interrupted"
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    if not any(line.startswith("Error:") for line in lines):
        return f"its process ended with exit code {code} and could not say why"  # such as where nothing can be written
    reason = reason_of(output, code).partition(ONCE_MENDED)[0]
    return reason if _OF_THE_MACHINE.search(reason) else ""
