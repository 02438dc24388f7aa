"""The report while the run goes on: rebuilt after a round, but never so often that the run waits for it."""

import time
from collections.abc import Callable
from pathlib import Path

from common.progress import Progress
from common.sparingly import Sparingly

SHARE = 0.05
"""Of the run's time at most this much goes into its report."""

FIRST_SECONDS = 10.0
"""A run that is over sooner has a report before anybody looks."""


class LiveReport:
    """`update` after every round; a failure to draw is told once and never ends the run."""

    def __init__(self, folder: Path, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._progress = folder, progress
        self._spare = Sparingly(SHARE, FIRST_SECONDS, clock)
        self._failed = False

    def update(self) -> None:
        """Rebuild the page if the last time is long enough ago."""
        if not self._failed:
            self._spare.do(self._build)

    def _build(self) -> None:
        try:
            from server.report.build import build_report  # loads what draws, which a run needs no sooner

            build_report(self._folder, live=True)
        except Exception as error:
            self._failed = True
            self._progress.note(f"the live report could not be written: {error}")
