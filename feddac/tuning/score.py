"""What a trial is judged by: the accuracy on the server's validation images, as the mean over all devices.

The test set is in the same files, for reports; nothing here reads it. A device that a method leaves without a model
guesses, as in a comparison.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from common.wording import number_of
from feddac.comparison.unserved import Fleet
from server.run_folder import RunFolder

FIGURE = "validation_accuracy"
"""The one figure of evaluations and of summary.json that is read."""


def after_rounds(folder: RunFolder, devices: int) -> dict[int, float]:
    """The score of a run of so many `devices` after each evaluated round, by its number; also while the run goes on.

    What it was before the first round is left out: it says nothing of the rounds. Raises CheckpointError for a damaged
    run folder.
    """
    cohorts = Counter(entry.cohort for entry in folder.read_budgets() if entry.cohort)
    events = folder.events()
    found: dict[int, dict[str, float]] = {}
    for event in events:
        if event["event"] == "evaluation" and event["round"] > 0:
            found.setdefault(int(event["round"]), {})[str(event["cohort"])] = number_of(event.get(FIGURE))
    return {
        number: _mean(((cohorts[name], by_cohort[name]) for name in cohorts), devices, events)
        for number, by_cohort in sorted(found.items())
        if cohorts and cohorts.keys() <= by_cohort.keys()
    }


def at_the_end(folder: RunFolder, devices: int) -> float:
    """The score of a finished run of so many `devices`; NaN where it has none."""
    rows = [(int(number_of(one.get("devices"))), one) for one in folder.read_summary()["cohorts"]]
    return _mean(((count, number_of(one.get(FIGURE))) for count, one in rows if count), devices, folder.events())


def _mean(cohorts: Iterable[tuple[int, float]], devices: int, events: Iterable[Mapping[str, Any]]) -> float:
    """The mean over all devices, of which those of each cohort (their number, their accuracy) have a model."""
    rows = list(cohorts)
    served = sum(count for count, _ in rows)
    mean = sum(count * accuracy for count, accuracy in rows) / served if served else math.nan
    return Fleet.of(devices, served, events).over_all(mean)
