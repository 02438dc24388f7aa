"""A run's events as TensorBoard scalars."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

EPOCH_EVENTS = ("search", "train")
"""Events of one epoch each, with its figures."""


class Scalars:
    """Writes the events' figures; the writer is imported with the first one, for that takes a second.

    Tags: test_accuracy/COHORT, loss/COHORT, validation_accuracy/COHORT, and bytes (both directions, all of a round).
    The epochs of a search or training are a run of their own beside them, which the resumption of rounds does not cut:
    search/validation_accuracy and the like.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._folder = folder
        self._purge_step = purge_step
        self._writers: dict[str, Any] = {}
        self._round = 0
        self._bytes = 0

    def add(self, event: Mapping[str, Any]) -> None:
        """Write the figures of one event, if it has any."""
        if event["event"] == "evaluation":
            for key in ("test_accuracy", "loss", "validation_accuracy"):
                self._write(f"{key}/{event['cohort']}", event.get(key), event["round"])
        elif event["event"] == "step":
            if event["round"] != self._round:
                self._write_bytes()
            self._round = event["round"]
            self._bytes += event["bytes_down"] + event["bytes_up"]
        elif event["event"] in EPOCH_EVENTS:
            kind, epoch = str(event["event"]), event["epoch"]
            for key, value in event.items():
                if isinstance(value, int | float) and key != "epoch":
                    self._write(f"{kind}/{key}", value, epoch, kind)

    def close(self) -> None:
        """Write what is still held back, and close the writers; the next event opens new ones."""
        self._write_bytes()
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write_bytes(self) -> None:
        """A round's bytes are complete once an event of another round, or the end, has come."""
        if self._bytes:
            self._write("bytes", self._bytes, self._round)
            self._bytes = 0

    def _write(self, tag: str, value: float | None, step: int, kind: str = "") -> None:
        if value is None or not np.isfinite(value):
            return
        if kind not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            purge_step = None if kind else self._purge_step
            self._writers[kind] = SummaryWriter(str(self._folder / kind), purge_step=purge_step)
        self._writers[kind].add_scalar(tag, value, step)
