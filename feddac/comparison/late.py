"""The accuracy that a run holds at its end: the mean of its last rounds, for a single round is up or down by chance."""

import math
from collections.abc import Sequence

from server.report.progress import Point

LATE_PERCENT = 20
"""So much of a run, its last rounds, counts."""


def late_accuracy(points: Sequence[Point]) -> float:
    """Mean accuracy of the evaluated ones among the last 20 % of rounds, at least of the last one.

    `points` are the evaluated rounds in their order; NaN where there is none. Of ten rounds the last two count, of
    eight the seventh and the eighth.
    """
    if not points:
        return math.nan
    last = points[-1].round
    late = [one.accuracy for one in points if 100 * one.round > (100 - LATE_PERCENT) * last] or [points[-1].accuracy]
    return sum(late) / len(late)
