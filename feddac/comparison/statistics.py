"""Means, deviations and paired tests over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feddac.comparison.effect_size import effect_size

LEAST_PAIRS = 3
"""Fewer pairs allow no test: two have one degree of freedom, and an interval 12.7 standard errors to either side."""

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""Differences that deviate by less than this, relative to the values, are equal: the rest is rounding."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of `count` values; NaN where there are too few."""

    mean: float
    deviation: float
    count: int


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, half the width of its 95 % confidence interval, and p of the two-sided paired t-test.

    `effect` is Cohen's d_z with Hedges' correction; `corrected_p` is p as it holds together with the others of its
    family, NaN where it was compared with no family. The mean is NaN where no pair is known; the others are NaN where
    fewer than LEAST_PAIRS are, and where all differences are equal.
    """

    mean: float
    half_width: float
    p: float
    effect: float
    pairs: int
    corrected_p: float = math.nan


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of the values that are numbers."""
    known = [value for value in values if math.isfinite(value)]
    n = len(known)
    mean = sum(known) / n if n else math.nan
    deviation = math.sqrt(sum((value - mean) ** 2 for value in known) / (n - 1)) if n > 1 else math.nan
    return Spread(mean, deviation, n)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """`values` minus `baseline` over the seeds (keys) that both have a number for.

    Student's paired t-test (two-sided, n - 1 degrees of freedom) and the confidence interval that belongs to it, both
    of at least LEAST_PAIRS pairs. Equal differences allow no test: accuracies come in steps of one test image, so a few
    seeds are often exactly equally far apart, also without any true difference, and then nothing tells how far another
    seed would be off.
    """
    pairs = [(values[seed], baseline[seed]) for seed in values if seed in baseline]
    pairs = [pair for pair in pairs if math.isfinite(pair[0] - pair[1])]
    of_pairs = spread([one - other for one, other in pairs])
    n = of_pairs.count
    if n < LEAST_PAIRS or of_pairs.deviation <= ROUNDING * max(abs(value) for pair in pairs for value in pair):
        return Difference(of_pairs.mean, math.nan, math.nan, math.nan, n)
    from scipy.stats import t as student

    error = of_pairs.deviation / math.sqrt(n)
    return Difference(
        mean=of_pairs.mean,
        half_width=float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * error,
        p=2 * float(student.sf(abs(of_pairs.mean) / error, n - 1)),
        effect=effect_size(of_pairs.mean, of_pairs.deviation, n),
        pairs=n,
    )
