"""The server app's log as a person wants to read it: without the traceback of a mistake that has its own message."""

from collections import Counter
from collections.abc import Callable, Sequence

_TRACEBACK = "Traceback (most recent call last):"
_OURS = "common.errors."
_NOISE = (
    "error: ServerApp raised an exception",
    "error: Exit Code: 201",
    "An unhandled exception occurred in the ServerApp.",
    "For more information, visit: <https://flower.ai/",
    "Start `flwr-serverapp` process",
)


def unseen(seen: Sequence[str], whole: Sequence[str]) -> list[str]:
    """The lines of a `whole` log that are not among those `seen` of it piece by piece, in their order.

    Flower streams what is younger than the last line it sent, so what is written after a clock was set back is never
    sent. A piece may end within a line, which is then no other line.
    """
    if _letters(seen) == _letters(whole):
        return []
    remaining = Counter(seen)
    missing = []
    for line in whole:
        if remaining[line] > 0:
            remaining[line] -= 1
        else:
            missing.append(line)
    return missing


def _letters(lines: Sequence[str]) -> int:
    return sum(len(part) for line in lines for part in line.split())


class LogLines:
    """Passes lines on to `show`, except Flower's own around an error and a traceback that ends in one of our errors.

    The message of such an error is in the run's status, and so is shown once. The traceback of a bug is shown whole.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._traceback: list[str] = []

    def __call__(self, line: str) -> None:
        """The next line of the log."""
        if line.startswith(_NOISE):
            return
        if line == _TRACEBACK or (self._traceback and line.startswith(" ")):
            self._traceback.append(line)
            return
        traceback, self._traceback = self._traceback, []
        if traceback and line.startswith(_OURS):
            return
        for one in (*traceback, line):
            self._show(one)
