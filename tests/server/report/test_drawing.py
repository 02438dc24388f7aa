"""How cohorts are told apart in the figures of a report."""

from server.report.drawing import marks_of


def test_the_first_49_cohorts_look_different() -> None:
    marks = marks_of(f"cohort-{index}" for index in range(49))
    assert len({(mark.colour, mark.marker) for mark in marks.values()}) == 49
