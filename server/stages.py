"""How long each stage of a run takes: recorded as events, and summed over every time that it was under way."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from common.process import peak_rss_bytes
from common.wording import number_of
from server.run_folder import RunFolder

STAGE_EVENT = "stage"


@contextmanager
def timed(stage: str, folder: RunFolder, seconds: dict[str, float]) -> Iterator[None]:
    """Time a stage: into the metrics, and added to its `seconds`; also where it is cut short by an error or Ctrl-C."""
    start = time.perf_counter()
    try:
        yield
    finally:
        elapsed = time.perf_counter() - start
        seconds[stage] = seconds.get(stage, 0.0) + elapsed
        record_stage(stage, folder, elapsed)


def record_stage(stage: str, folder: RunFolder, seconds: float) -> None:
    """Append the event of a stage that took so long."""
    folder.append(STAGE_EVENT, stage=stage, seconds=seconds, peak_rss_bytes=peak_rss_bytes())


def seconds_by_stage(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What all the events of each stage add up to, in the order in which they came; what is no number is left out."""
    seconds: dict[str, float] = {}
    for event in events:
        stage, value = str(event.get("stage")), number_of(event.get("seconds"))
        if math.isfinite(value):
            seconds[stage] = seconds.get(stage, 0.0) + value
    return seconds
