"""comparison.csv: one row per finished run, as a spreadsheet or a data frame reads it."""

import csv
import io
from collections.abc import Sequence

from feddac.comparison.collect import CellResult, Outcome

FIGURES = tuple(
    name
    for name in Outcome.__dataclass_fields__
    if name not in ("seed", "folder", "cohort_accuracies", "cohort_devices", "macs_range", "progress")
)
"""Columns of an outcome that hold one number each, in their own units: shares of 1, bytes, seconds."""


def comparison_csv(results: Sequence[CellResult]) -> str:
    """Cell, one column per axis of the grid, method, seed, the figures of the run, and its folder."""
    axes = list(results[0].cell.labels) if results else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cell", *(f"grid:{axis}" for axis in axes), "method", "seed", *FIGURES, "folder"])
    for result in results:
        labels = [result.cell.labels[axis] for axis in axes]
        for method in result.methods:
            for run in method.outcomes:
                figures = [getattr(run, name) for name in FIGURES]
                writer.writerow([result.cell.name, *labels, method.name, run.seed, *figures, run.folder])
    return text.getvalue()
