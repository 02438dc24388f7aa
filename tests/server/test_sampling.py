"""Who trains in a round, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigurationError
from server.sampling import local_epochs, sample_devices

NAMES = [f"device-{number:02d}" for number in range(10)]


def sampled(fraction: float, minimum: int, round: int = 1, seed: int = 0, cohort: str = "cohort-0") -> list[str]:
    return sample_devices(NAMES, fraction, minimum, seed=seed, round=round, cohort=cohort)


def test_everyone_trains_by_default() -> None:
    assert sampled(1.0, 1) == NAMES


def test_a_fraction_is_rounded_and_never_below_the_minimum() -> None:
    assert [len(sampled(f, 1)) for f in (0.01, 0.14, 0.25, 0.5, 0.96)] == [1, 1, 3, 5, 10]
    assert len(sampled(0.1, 4)) == 4
    assert len(sampled(0.1, 40)) == 10


def test_nobody_is_sampled_from_an_empty_cohort() -> None:
    assert sample_devices([], 1.0, 3, seed=0, round=1, cohort="cohort-0") == []


@given(st.integers(0, 2**40), st.integers(1, 1000))
def test_a_sample_is_a_subset_in_order_and_repeats_with_the_seed(seed: int, round: int) -> None:
    names = sampled(0.4, 1, round, seed)
    assert names == sorted(set(names))
    assert names == sampled(0.4, 1, round, seed)


def test_samples_differ_between_rounds_and_cohorts() -> None:
    rounds = {tuple(sampled(0.3, 1, round)) for round in range(20)}
    cohorts = {tuple(sampled(0.3, 1, cohort=f"cohort-{number}")) for number in range(20)}
    assert len(rounds) > 10
    assert len(cohorts) > 10


def test_epochs_are_fixed_or_drawn_from_a_range_with_both_ends() -> None:
    fixed = {local_epochs("4", seed=0, round=round, device="a") for round in range(50)}
    drawn = {local_epochs("3-5", seed=0, round=round, device="a") for round in range(50)}
    assert fixed == {4}
    assert drawn == {3, 4, 5}


def test_each_device_draws_its_own_epochs() -> None:
    assert len({local_epochs("1-1000", seed=0, round=1, device=name) for name in NAMES}) > 5


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="3-5"):
        local_epochs("5-3", seed=0, round=1, device="a")
