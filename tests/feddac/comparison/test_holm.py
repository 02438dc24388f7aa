"""Holm's correction against numbers worked out by hand, and what holds for any family."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feddac.comparison.holm import corrected

FAMILIES = st.lists(st.floats(0, 1), max_size=12)


def test_by_hand() -> None:
    # In order: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not be below the one before.
    assert corrected([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_at_most_one() -> None:
    assert corrected([0.4, 0.6, 0.9]) == [1, 1, 1]


def test_a_family_of_one_needs_no_correction() -> None:
    assert corrected([0.03]) == [0.03]
    assert corrected([]) == []


def test_tests_that_were_not_made_do_not_count() -> None:
    found = corrected([math.nan, 0.01, math.nan, 0.02])
    assert found[1::2] == [0.02, 0.02]
    assert all(map(math.isnan, found[::2]))


@given(FAMILIES)
def test_never_below_the_raw_value_nor_above_one_and_in_the_same_order(p_values: list[float]) -> None:
    found = corrected(p_values)
    assert all(raw <= one <= 1 for raw, one in zip(p_values, found, strict=True))
    in_order = [one for _, one in sorted(zip(p_values, found, strict=True))]
    assert in_order == sorted(in_order)


@given(FAMILIES)
def test_never_above_bonferroni(p_values: list[float]) -> None:
    assert all(one <= min(1, len(p_values) * raw) for raw, one in zip(p_values, corrected(p_values), strict=True))


@given(FAMILIES, st.randoms(use_true_random=False))
def test_the_order_of_the_family_does_not_matter(p_values: list[float], chance: random.Random) -> None:
    places = list(range(len(p_values)))
    chance.shuffle(places)
    found = corrected(p_values)
    assert corrected([p_values[place] for place in places]) == [found[place] for place in places]


def test_without_any_true_difference_a_family_seldom_claims_one() -> None:
    """Eight tests each: uncorrected 34 % of the families would have a p below 0.05, corrected at most 5 %."""
    families = np.random.default_rng(0).uniform(size=(4000, 8)).tolist()
    assert sum(min(family) < 0.05 for family in families) / len(families) > 0.3
    assert sum(min(corrected(family)) < 0.05 for family in families) / len(families) < 0.06
