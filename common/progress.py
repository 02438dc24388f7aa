"""How long work tells whoever watches it how far it is: a bar on a terminal, log lines elsewhere, nothing in tests."""

import logging
from typing import Protocol


class Progress(Protocol):
    """What the search and the federation call while they work; all calls may come from another thread."""

    def start(self, stage: str, total: int) -> None:
        """A stage (`handshake`, `search`, `rounds`, ...) of `total` units of work begins."""

    def advance(self, stage: str, units: int, message: str) -> None:
        """`units` more of the stage are done; `message` says in a few words where it stands."""

    def finish(self, stage: str, message: str) -> None:
        """The stage is over; `message` is its result in one line."""

    def note(self, message: str) -> None:
        """Something a user can act on happened, such as a rejected device."""


class Silent:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int) -> None:
        """Ignore."""

    def advance(self, stage: str, units: int, message: str) -> None:
        """Ignore."""

    def finish(self, stage: str, message: str) -> None:
        """Ignore."""

    def note(self, message: str) -> None:
        """Ignore."""


class Logged:
    """Progress as log lines, for servers without a terminal."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def start(self, stage: str, total: int) -> None:
        """Log the stage's name."""
        self._logger.info("%s: started", stage)

    def advance(self, stage: str, units: int, message: str) -> None:
        """Log where the stage stands."""
        self._logger.info("%s: %s", stage, message)

    def finish(self, stage: str, message: str) -> None:
        """Log the stage's result."""
        self._logger.info("%s: %s", stage, message)

    def note(self, message: str) -> None:
        """Log a warning."""
        self._logger.warning(message)
