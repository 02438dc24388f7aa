"""comparison.tex: whose accuracy stands beside which difference, and nothing of a title outside its comment."""

from feddac.comparison.latex import comparison_tex
from feddac.comparison.tables import HEADINGS, CellTable


def test_the_accuracy_that_differences_are_of_stands_before_them() -> None:
    """A difference is of all devices, the first accuracy of those with a model."""
    table = CellTable("all runs", (tuple(f"<{heading}>" for heading in HEADINGS),))
    headings, row = (
        next(line for line in comparison_tex("Title", [table], []).splitlines() if line.startswith(start)).split(" & ")
        for start in ("method & ", "$<$method$>$ & ")
    )
    assert headings[1:4] == ["accuracy", "accuracy of all devices", r"difference [95 \%]"]
    assert row[2] == "$<$accuracy of all devices$>$"


def test_all_of_a_title_is_a_comment() -> None:
    assert comparison_tex("Two\n\nlines", [], ["a note"]).splitlines() == ["% Two lines", "% a note"]
