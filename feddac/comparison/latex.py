"""comparison.tex: one table per cell for a paper, to be included as it is (package booktabs)."""

from collections.abc import Sequence

from common.wording import NARROW_SPACE
from feddac.comparison.tables import HEADINGS, CellTable, columns

COLUMNS = columns(
    *("method", "accuracy", "accuracy of all devices", "difference [95 %]", "p (Holm)", "effect size"),
    *("MACs (range)", "MACs per device and round", "bytes down", "bytes up"),
)
_SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    NARROW_SPACE: r"\,",
}


def comparison_tex(title: str, tables: Sequence[CellTable], notes: Sequence[str]) -> str:
    """The tables, each a float with its caption; `notes` stand above as comments."""
    lines = [f"% {escaped(' '.join(title.split()))}", *(f"% {note}" for note in notes)]
    for table in tables:
        lines += [
            "",
            r"\begin{table}",
            f"\\caption{{{escaped(table.title)}}}",
            f"\\begin{{tabular}}{{l{'r' * (len(COLUMNS) - 1)}}}",
            r"\toprule",
            _row(HEADINGS),
            r"\midrule",
            *(_row(row) for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    r"""Text as LaTeX prints it.

    >>> escaped("50 % of a_b")
    '50 \\% of a\\_b'
    """
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(escaped(cells[column]) for column in COLUMNS) + r" \\"
