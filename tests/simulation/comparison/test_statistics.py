"""Spreads and paired t-tests against numbers worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation.comparison.statistics import paired_difference, spread

NUMBERS = st.floats(-1, 1)


def test_mean_and_sample_deviation() -> None:
    found = spread([2.0, 4.0, 4.0, 6.0])
    assert (found.mean, found.count) == (4.0, 4)
    assert found.deviation == pytest.approx(math.sqrt(8 / 3))


def test_one_value_has_no_deviation_and_none_has_no_mean() -> None:
    assert spread([0.5]).mean == 0.5
    assert math.isnan(spread([0.5]).deviation)
    assert math.isnan(spread([]).mean)
    assert spread([0.5, math.nan]).count == 1


def test_paired_t_test_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, standard error 1/sqrt(3), t = 2 sqrt(3) with two degrees of freedom.
    # There P(|T| > t) = 1 - t / sqrt(2 + t^2), and the 97.5 % quantile is 4.302653.
    found = paired_difference({0: 11.0, 1: 12.0, 2: 13.0}, {0: 10.0, 1: 10.0, 2: 10.0})
    t = 2 * math.sqrt(3)
    assert found.mean == pytest.approx(2.0)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert found.pairs == 3


def test_only_shared_seeds_count() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 5: 99.0}, {0: 0.0, 1: 0.5, 7: -99.0})
    assert (found.mean, found.pairs) == (1.25, 2)


def test_fewer_than_two_shared_seeds_say_nothing() -> None:
    found = paired_difference({0: 1.0}, {0: 0.5})
    assert (found.mean, found.pairs) == (0.5, 1)
    assert math.isnan(found.half_width)
    assert math.isnan(found.p)


def test_equal_differences_leave_no_doubt() -> None:
    assert paired_difference({0: 0.5, 1: 0.25}, {0: 0.5, 1: 0.25}).p == 1.0
    assert paired_difference({0: 0.75, 1: 0.5}, {0: 0.5, 1: 0.25}).p == 0.0


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=6))
def test_the_interval_holds_zero_exactly_when_p_is_at_least_five_percent(pairs: list[tuple[float, float]]) -> None:
    found = paired_difference(dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs)))
    assert 0 <= found.p <= 1
    if abs(found.p - 0.05) > 1e-6:
        assert (abs(found.mean) <= found.half_width) == (found.p > 0.05)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=6))
def test_exchanging_the_methods_changes_the_sign_alone(pairs: list[tuple[float, float]]) -> None:
    first, second = dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs))
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.half_width, one.p) == pytest.approx((other.half_width, other.p))
