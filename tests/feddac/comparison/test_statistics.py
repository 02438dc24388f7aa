"""Spreads and paired t-tests against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feddac.comparison.effect_size import effect_size
from feddac.comparison.statistics import paired_difference, spread

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


def test_effect_size_by_hand() -> None:
    # Differences 1, 2, 3: d_z = 2 / 1. J(2) = gamma(1) / (sqrt(1) gamma(1/2)) = 1 / sqrt(pi).
    found = paired_difference({0: 11.0, 1: 12.0, 2: 13.0}, {0: 10.0, 1: 10.0, 2: 10.0})
    assert found.effect == pytest.approx(2 / math.sqrt(math.pi))
    # Five pairs: J(4) = gamma(2) / (sqrt(2) gamma(3/2)) = 1 / (sqrt(2) sqrt(pi) / 2).
    assert effect_size(-3.0, 1.5, 5) == pytest.approx(-2 * math.sqrt(2 / math.pi))


def test_hedges_correction_takes_the_bias_away() -> None:
    """Differences with mean 1 and deviation 1, four at a time: d_z is 1.38 on average, the corrected one 1."""
    generator = np.random.default_rng(1)
    drawn = generator.normal(1, 1, size=(200_000, 4))
    found = [
        effect_size(mean, deviation, 4) for mean, deviation in zip(drawn.mean(1), drawn.std(1, ddof=1), strict=True)
    ]
    assert np.mean(found) == pytest.approx(1, abs=0.02)


def test_only_shared_seeds_count() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 5: 99.0}, {0: 0.0, 1: 0.5, 7: -99.0})
    assert (found.mean, found.pairs) == (1.25, 2)


@pytest.mark.parametrize("pairs", [1, 2])
def test_fewer_than_three_shared_seeds_have_a_mean_and_no_test(pairs: int) -> None:
    values, baseline = {0: 1.0, 1: 1.5}, dict.fromkeys(range(pairs), 0.5)
    found = paired_difference(values, baseline)
    assert (found.mean, found.pairs) == ((0.5, 0.75)[pairs - 1], pairs)
    assert all(math.isnan(one) for one in (found.half_width, found.p, found.effect))


@pytest.mark.parametrize(
    ("values", "baseline"),
    [
        ({0: 0.5, 1: 0.25, 2: 0.5}, {0: 0.5, 1: 0.25, 2: 0.5}),
        ({0: 0.75, 1: 0.5, 2: 1.0}, {0: 0.5, 1: 0.25, 2: 0.75}),
        ({0: 0.3, 1: 0.4, 2: 0.9}, {0: 0.2, 1: 0.3, 2: 0.8}),  # 0.1 each, but not to the last bit
    ],
)
def test_equal_differences_allow_no_test(values: dict[int, float], baseline: dict[int, float]) -> None:
    found = paired_difference(values, baseline)
    assert found.mean == pytest.approx(values[0] - baseline[0])
    assert all(math.isnan(one) for one in (found.half_width, found.p, found.effect))
    assert found.pairs == 3


def test_without_a_true_difference_few_comparisons_claim_one() -> None:
    # Two methods of equal accuracy, measured on 10 images with three seeds: about 3 % are exactly equally far apart,
    # which must not count as p = 0 or 1. What is left are honest tests: about 5 % of them below 0.05.
    generator = np.random.default_rng(0)
    accuracies = generator.binomial(10, 0.8, size=(4000, 2, 3)) / 10
    found = [paired_difference(dict(enumerate(one)), dict(enumerate(other))) for one, other in accuracies.tolist()]
    tested = [each.p for each in found if not math.isnan(each.p)]
    assert 0.02 < 1 - len(tested) / len(found) < 0.05
    assert min(tested) > 0
    assert sum(p < 0.05 for p in tested) / len(tested) < 0.07


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=6))
def test_the_interval_holds_zero_exactly_when_p_is_at_least_five_percent(pairs: list[tuple[float, float]]) -> None:
    found = paired_difference(dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs)))
    if math.isnan(found.p):
        differences = [a - b for a, b in pairs]
        assert max(differences) - min(differences) <= 1e-11
        return
    assert 0 < found.p <= 1 or found.half_width < 1e-9
    if abs(found.p - 0.05) > 1e-6:
        assert (abs(found.mean) <= found.half_width) == (found.p > 0.05)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=6))
def test_exchanging_the_methods_changes_the_sign_alone(pairs: list[tuple[float, float]]) -> None:
    first, second = dict(enumerate(a for a, _ in pairs)), dict(enumerate(b for _, b in pairs))
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.half_width, one.p) == pytest.approx((other.half_width, other.p), nan_ok=True)
    assert one.effect == pytest.approx(-other.effect, nan_ok=True)
