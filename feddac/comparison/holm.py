"""Many comparisons at once: p values that hold for all of a family together.

Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2), 65-70: the
chance that any of the family's claims is wrong stays below the level, whatever the tests have to do with each other,
as with Bonferroni, and no claim is lost that Bonferroni would make.
"""

import math
from collections.abc import Sequence


def corrected(p_values: Sequence[float]) -> list[float]:
    """The p values of one family, corrected by Holm's step-down procedure, in the order given.

    The smallest of m is multiplied by m, the next one by m - 1, and so on; none may be below one that was smaller
    before, nor above 1. Those that are NaN, tests that were not made, are no part of the family and stay NaN.

    >>> corrected([0.01, 0.04, 0.03, 0.005])
    [0.03, 0.06, 0.06, 0.02]
    """
    found = list(p_values)
    tested = sorted((place for place, p in enumerate(found) if not math.isnan(p)), key=found.__getitem__)
    least = 0.0
    for rank, place in enumerate(tested):
        least = min(1.0, max(least, (len(tested) - rank) * found[place]))
        found[place] = least
    return found
