"""The report while the run goes on: rebuilt after a round, but never so often that the run waits for it."""

import time
from collections.abc import Callable
from pathlib import Path

from common.progress import Progress
from server.report.build import build_report

SHARE = 0.05
"""Of the run's time at most this much goes into its report."""


FIRST_SECONDS = 10.0
"""A run that is over sooner has a report before anybody looks."""


class LiveReport:
    """`update` after every round; a failure to draw is told once and never ends the run."""

    def __init__(self, folder: Path, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._progress, self._clock = folder, progress, clock
        self._next = clock() + FIRST_SECONDS
        self._failed = False

    def update(self) -> None:
        """Rebuild the page if the last time is long enough ago."""
        begin = self._clock()
        if self._failed or begin < self._next:
            return
        try:
            build_report(self._folder, live=True)
        except Exception as error:
            self._failed = True
            self._progress.note(f"the live report could not be written: {error}")
        end = self._clock()
        self._next = end + (end - begin) * (1 - SHARE) / SHARE
