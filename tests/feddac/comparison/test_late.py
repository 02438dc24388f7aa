"""The mean of the last rounds, by hand."""

import math

import pytest

from feddac.comparison.late import late_accuracy
from server.report.progress import Point


def points(*rounds: int) -> list[Point]:
    """Evaluated rounds whose accuracy is a hundredth of their number."""
    return [Point(one, one / 100, 0.0, 0.0, 0.0) for one in rounds]


@pytest.mark.parametrize(
    ("rounds", "mean"),
    [
        (range(11), 0.095),  # 9 and 10
        (range(6), 0.05),  # 5 of 5
        (range(16), 0.14),  # 13, 14, 15
        ((0, 2, 4, 6, 8), 0.08),  # 7 and 8, of which one was evaluated
        ((0, 4, 8, 12), 0.12),  # 10, 11 and 12
        (range(4), 0.03),  # a fifth of three rounds is less than one
        ((0,), 0.0),
    ],
)
def test_evaluated_rounds_of_the_last_fifth(rounds: range, mean: float) -> None:
    assert late_accuracy(points(*rounds)) == pytest.approx(mean)


def test_a_run_that_was_never_evaluated_has_none() -> None:
    assert math.isnan(late_accuracy([]))
