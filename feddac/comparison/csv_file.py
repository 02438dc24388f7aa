"""comparison.csv, one row per finished run, and differences.csv, one per comparison, as a data frame reads them."""

import csv
import io
import math
from collections.abc import Sequence

from feddac.comparison.collect import CellResult, Outcome
from feddac.comparison.statistics import Difference

FIGURES = tuple(
    name
    for name in Outcome.__dataclass_fields__
    if name not in ("seed", "folder", "cohort_accuracies", "cohort_devices", "macs_range", "progress")
)
"""Columns of an outcome that hold one number each, in their own units: shares of 1, bytes, seconds."""


OF_DIFFERENCE = ("pairs", "difference", "low_95", "high_95", "p", "p_holm", "effect_size")
"""Columns of a comparison with the baseline; differences in shares of 1."""


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


def differences_csv(baseline: str, results: Sequence[CellResult]) -> str:
    """Cell, one column per axis of the grid, method, baseline, OF_DIFFERENCE; what is not known stays empty."""
    axes = list(results[0].cell.labels) if results else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cell", *(f"grid:{axis}" for axis in axes), "method", "baseline", *OF_DIFFERENCE])
    for result in results:
        labels = [result.cell.labels[axis] for axis in axes]
        for method in result.methods:
            if method.difference is not None:
                writer.writerow([result.cell.name, *labels, method.name, baseline, *_of(method.difference)])
    return text.getvalue()


def _of(value: Difference) -> list[float | str]:
    low, high = value.mean - value.half_width, value.mean + value.half_width
    numbers = (value.pairs, value.mean, low, high, value.p, value.corrected_p, value.effect)
    return ["" if math.isnan(one) else one for one in numbers]
