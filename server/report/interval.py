"""How sure an accuracy is, given the number of images that it was measured on."""

import math

Z = 1.959964  # the normal distribution's 97.5 % quantile


def interval(accuracy: float, images: float) -> tuple[float, float]:
    """The 95 % interval of a share measured on so many images (Wilson 1927); NaN where either is unknown.

    >>> [round(bound, 3) for bound in interval(0.95, 400)]
    [0.924, 0.967]
    """
    if not (math.isfinite(accuracy) and images > 0):
        return math.nan, math.nan
    square = Z * Z
    centre = (accuracy + square / (2 * images)) / (1 + square / images)
    spread = accuracy * (1 - accuracy) / images + square / (4 * images * images)
    half = Z / (1 + square / images) * math.sqrt(spread)
    return centre - half, centre + half
