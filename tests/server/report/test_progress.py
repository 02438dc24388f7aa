"""What a run had cost when it was how accurate, worked out by hand."""

import math
from typing import Any

import pytest

from server.report.progress import Point, milestones, progress_of, reached


def step(number: int, cohort: str, seconds: float | None, name: str = "train", macs: int = 10) -> dict[str, Any]:
    event = {"round": number, "cohort": cohort, "step": name, "bytes_down": 3, "bytes_up": 2, "device_macs": macs}
    return event if seconds is None else {**event, "simulated_seconds": seconds}


def evaluation(number: int, cohort: str, accuracy: float) -> dict[str, Any]:
    return {"round": number, "cohort": cohort, "test_accuracy": accuracy}


STEPS = [
    *(step(1, "a", 5.0), step(1, "b", 7.0)),
    *(step(2, "a", 4.0), step(2, "b", 1.0), step(2, "a", 0.5, "evaluate"), step(2, "b", 0.25, "evaluate")),
]
EVALUATIONS = [
    *(evaluation(0, "a", 0.1), evaluation(0, "b", 0.1), evaluation(1, "a", 0.3)),
    *(evaluation(2, "a", 0.6), evaluation(2, "b", 0.3)),
]


def test_cohorts_work_at_the_same_time_and_costs_add_up() -> None:
    """Round 1 takes as long as cohort b, round 2 as a trains and then evaluates; round 1 was not evaluated whole."""
    points = progress_of(STEPS, EVALUATIONS, {"a": 1, "b": 3})
    assert points == (
        Point(0, pytest.approx(0.1), 0, 0, 0),
        Point(2, pytest.approx((0.6 + 3 * 0.3) / 4), 7 + 4 + 0.5, 6 * 5, 4 * 10),
    )


def test_what_was_not_recorded_is_not_invented() -> None:
    points = progress_of([step(1, "a", None)], [evaluation(1, "a", 0.4)], {"a": 2})
    assert math.isnan(points[0].simulated_seconds)
    assert (points[0].bytes, points[0].device_macs) == (5, 10)
    assert progress_of(STEPS, EVALUATIONS, {}) == ()


def test_a_cohort_that_comes_late_takes_no_earlier_point_away() -> None:
    """Before it came the mean is over the others; b and c are there from round 2 on, and c was never evaluated."""
    steps = [step(1, "a", 1.0), *(step(2, name, 1.0) for name in "abc"), *(step(3, name, 1.0) for name in "abc")]
    evaluations = [evaluation(0, "a", 0.1), evaluation(1, "a", 0.3), evaluation(3, "a", 0.5), evaluation(3, "b", 0.9)]
    points = progress_of(steps, evaluations, {"a": 1, "b": 3})
    assert [(one.round, one.accuracy) for one in points] == [(0, 0.1), (1, 0.3), (3, pytest.approx(0.8))]
    assert [one.round for one in progress_of(steps, evaluations, {"a": 1, "b": 3, "c": 1})] == [0, 1]


def test_a_round_is_no_point_while_a_cohort_that_was_there_is_not_evaluated() -> None:
    """A run that is cut short between the evaluations of two cohorts, before its first round or after it came."""
    assert progress_of([], [evaluation(0, "a", 0.1)], {"a": 1, "b": 3}) == ()
    steps = [step(1, "a", 1.0), step(2, "a", 1.0), step(2, "b", 1.0)]
    evaluations = [evaluation(1, "a", 0.3), evaluation(2, "a", 0.4), evaluation(3, "b", 0.5)]
    assert [one.round for one in progress_of(steps, evaluations, {"a": 1, "b": 3})] == [1]


def test_milestones_are_every_ten_per_cent_that_the_run_learned() -> None:
    points = [Point(n, accuracy, 10.0 * n, 5 * n, n) for n, accuracy in enumerate((0.2, 0.34, 0.31, 0.55))]
    assert reached(points, 0.33) == points[1]
    assert reached(points, 0.6) is None
    found = milestones(points)
    assert [(one["target"], one["round"], one["simulated_seconds"]) for one in found] == [
        (0.3, 1, 10.0),
        (0.4, 3, 30.0),
        (0.5, 3, 30.0),
    ]
    assert milestones([]) == []
