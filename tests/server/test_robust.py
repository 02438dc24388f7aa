"""Robust aggregation: by hand, against brute force, against Flower's own strategies, and the bounds it promises."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg
from hypothesis import given
from hypothesis import strategies as st

from common.arrays import Vector
from common.config import Config
from common.groups import FederationSettings
from server.aggregation import CohortMean, sample_cap
from server.ordering import InOrder
from server.robust import RobustMean, clip_updates, is_robust, trimmed_mean


def averaged(mean: CohortMean | RobustMean) -> Vector | None:
    total = mean.result()
    return None if total is None else total.mean()


MEDIAN = FederationSettings(robust_aggregation="median")
TRIMMED = FederationSettings(robust_aggregation="trimmed-mean")
CLIPPED = FederationSettings(clip_norm=1.0)

finite = st.floats(-1e6, 1e6, width=32)
matrices = st.integers(1, 7).flatmap(
    lambda count: st.lists(st.lists(finite, min_size=3, max_size=3), min_size=count, max_size=count)
)


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def combine(
    models: Sequence[Sequence[float]], settings: FederationSettings, samples: Sequence[int] = (), sent: float = 0.0
) -> tuple[list[float], bool]:
    """The combined model and whether it was protected."""
    mean = RobustMean(np.full(len(models[0]), sent, np.float32), settings)
    for number, model in enumerate(models):
        mean.fold(vector(*model), samples[number] if samples else 1)
    result = averaged(mean)
    assert result is not None
    assert mean.protected is not None
    assert result.dtype == np.float32
    return result.tolist(), mean.protected


def test_the_median_is_taken_per_coordinate() -> None:
    assert combine([(1, 9), (2, -5), (1000, 0)], MEDIAN) == ([2.0, 0.0], True)
    assert combine([(1,), (2,), (4,), (1000,)], MEDIAN) == ([3.0], True)  # (2 + 4) / 2


def test_the_trimmed_mean_drops_both_ends_of_each_coordinate() -> None:
    models = [(1, 5), (2, 4), (3, 3), (6, 2), (-1000, 1)]
    assert combine(models, TRIMMED) == ([2.0, 3.0], True)  # (1 + 2 + 3) / 3 and (4 + 3 + 2) / 3


def test_a_cohort_of_three_drops_one_at_either_end_whatever_the_share() -> None:
    assert combine([(1,), (2,), (90,)], FederationSettings(robust_aggregation="trimmed-mean", trim_share=0.01)) == (
        [2.0],
        True,
    )


def test_sample_counts_have_no_say_in_a_median() -> None:
    assert combine([(1,), (2,), (900,)], MEDIAN, samples=[1, 1, 2**40])[0] == [2.0]


def test_clipping_by_hand() -> None:
    # Updates from (1, 1): norms 5, 1 and 10; the median is 5, so only the last is cut, to half its length.
    models = [vector(4, 5), vector(2, 1), vector(7, 9)]
    clipped = clip_updates(models, vector(1, 1), 1.0)
    assert [one.tolist() for one in clipped] == [[4.0, 5.0], [2.0, 1.0], [4.0, 5.0]]
    assert clipped[0] is models[0]
    assert clip_updates(models, vector(1, 1), 2.0)[2] is models[2]


def test_running_statistics_are_clipped_apart_by_hand() -> None:
    """Norms of the weights: 5, 1 and 10, of the statistics 8, 2 and 4; neither has a say in the other's limit."""
    models = [vector(3, 4, 8), vector(1, 0, 2), vector(6, 8, 4)]
    clipped = clip_updates(models, vector(0, 0, 0), 1.0, np.array([False, False, True]))
    assert [one.tolist() for one in clipped] == [[3.0, 4.0, 4.0], [1.0, 0.0, 2.0], [3.0, 4.0, 4.0]]
    assert clipped[1] is models[1]
    assert [one.tolist() for one in models] == [[3.0, 4.0, 8.0], [1.0, 0.0, 2.0], [6.0, 8.0, 4.0]]
    without = clip_updates(models, vector(0, 0, 0), 1.0, np.zeros(3, np.bool_))
    assert [one.tolist() for one in without] == [one.tolist() for one in clip_updates(models, vector(0, 0, 0), 1.0)]


def test_of_two_middle_norms_the_smaller_one_limits() -> None:
    clipped = clip_updates([vector(1), vector(2), vector(300), vector(500)], vector(0), 1.0)
    assert [one.tolist() for one in clipped] == [[1.0], [2.0], [2.0], [2.0]]


def test_clipped_models_are_weighed_by_their_samples() -> None:
    assert combine([(1,), (2,), (600,)], CLIPPED, samples=[1, 1, 2])[0] == [1.75]  # (1 + 2 + 2 * 2) / 4


def test_an_update_of_norm_zero_stays() -> None:
    assert combine([(1,), (1,), (1,)], CLIPPED, sent=1.0) == ([1.0], True)
    assert combine([(1,), (1,), (9,)], CLIPPED, sent=1.0) == ([1.0], True)


@pytest.mark.parametrize("settings", [MEDIAN, TRIMMED, CLIPPED])
def test_with_two_models_there_is_no_majority_so_they_are_averaged_and_it_says_so(settings: FederationSettings) -> None:
    assert combine([(1,), (5,)], settings, samples=[3, 1]) == ([2.0], False)
    assert combine([(7,)], settings) == ([7.0], False)


def test_without_a_model_there_is_no_result() -> None:
    assert averaged(RobustMean(vector(0), MEDIAN)) is None


def test_more_cannot_be_trimmed_than_there_is() -> None:
    with pytest.raises(ValueError, match="cannot trim 2 of 4"):
        trimmed_mean([vector(1)] * 4, 2)


@given(matrices)
def test_the_median_is_that_of_the_textbook(models: list[list[float]]) -> None:
    got = trimmed_mean([vector(*model) for model in models], (len(models) - 1) // 2)
    expected = vector(*(statistics.median(column) for column in zip(*models, strict=True)))
    assert got.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@given(matrices, st.integers(0, 3))
def test_the_trimmed_mean_is_that_of_the_textbook(models: list[list[float]], trimmed: int) -> None:
    trimmed = min(trimmed, (len(models) - 1) // 2)
    got = trimmed_mean([vector(*model) for model in models], trimmed)
    for value, column in zip(got.tolist(), zip(*models, strict=True), strict=True):
        kept = sorted(column)[trimmed : len(column) - trimmed]
        assert value == pytest.approx(statistics.fmean(kept), rel=1e-6, abs=1e-6)


@given(matrices, st.sampled_from([MEDIAN, TRIMMED, CLIPPED]), st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_who_answers_first(
    models: list[list[float]], settings: FederationSettings, random: Any
) -> None:
    names = [f"device-{number}" for number in range(len(models))]
    results = []
    for order in (range(len(models)), random.sample(range(len(models)), len(models))):
        mean, waiting = RobustMean(vector(0, 0, 0), settings), InOrder[int](names)
        for number in order:
            for _, now in waiting.settle(names[number], number):
                mean.fold(vector(*models[now]), now + 1)
        result = averaged(mean)
        assert result is not None
        results.append(result.tobytes())
    assert results[0] == results[1]


@given(
    st.lists(st.lists(finite, min_size=2, max_size=2), min_size=2, max_size=5),
    st.lists(st.lists(finite, min_size=2, max_size=2), min_size=1, max_size=4),
)
def test_a_minority_cannot_pull_the_median_out_of_the_range_of_the_others(
    honest: list[list[float]], hostile: list[list[float]]
) -> None:
    hostile = hostile[: len(honest) - 1]
    result, protected = combine([*hostile, *honest], MEDIAN)
    assert protected
    for value, column in zip(result, zip(*honest, strict=True), strict=True):
        assert min(column) <= value <= max(column)


@given(
    st.lists(st.lists(finite, min_size=2, max_size=2), min_size=2, max_size=5),
    st.lists(st.lists(finite, min_size=2, max_size=2), min_size=1, max_size=4),
)
def test_a_minority_cannot_move_the_clipped_mean_farther_than_the_farthest_of_the_others(
    honest: list[list[float]], hostile: list[list[float]]
) -> None:
    hostile = hostile[: len(honest) - 1]
    result, _ = combine([*hostile, *honest], CLIPPED)
    farthest = max(float(np.linalg.norm(np.float64(model))) for model in honest)
    assert np.linalg.norm(result) <= farthest * (1 + 1e-6)


def replies_of(models: list[np.ndarray]) -> list[Message]:
    question = Message(RecordDict(), 1, "train")
    return [
        Message(
            RecordDict({"arrays": ArrayRecord({"w": Array(model)}), "m": MetricRecord({"num-examples": 10})}),
            reply_to=question,
        )
        for model in models
    ]


@pytest.mark.parametrize("count", [3, 4, 5, 8, 11])
def test_one_cohort_agrees_with_flowers_own_strategies(count: int) -> None:
    generator = np.random.default_rng(count)
    models = [generator.standard_normal(1000).astype(np.float32) for _ in range(count)]
    arrays, _ = FedMedian().aggregate_train(1, replies_of(models))
    assert arrays is not None
    ours, _ = combine([model.tolist() for model in models], MEDIAN)
    np.testing.assert_allclose(vector(*ours), arrays["w"].numpy(), rtol=1e-6)
    if int(0.2 * count) >= 1:  # Flower trims nothing from fewer than five; FedDAC trims one
        arrays, _ = FedTrimmedAvg(beta=0.2).aggregate_train(1, replies_of(models))
        assert arrays is not None
        ours, _ = combine([model.tolist() for model in models], TRIMMED)
        np.testing.assert_allclose(vector(*ours), arrays["w"].numpy(), rtol=1e-5, atol=1e-6)


def test_only_what_was_asked_for_is_robust(small_config: Callable[..., Config]) -> None:
    assert not is_robust(small_config().federation)
    assert is_robust(small_config(clip_norm=2).federation)
    assert is_robust(small_config(robust_aggregation="median").federation)


def test_the_cap_by_hand() -> None:
    assert sample_cap([10, 10, 1000], 0.5) == 20  # 20 of 40
    assert sample_cap([10, 20, 30], 0.5) == 30  # nobody has more than half
    assert sample_cap([10, 20, 30], 0.1) == 10  # impossible for three devices, so all count alike
    assert sample_cap([7], 0.5) == 7
    assert sample_cap([1, 2**40], 1.0) >= 2**40


@given(st.lists(st.integers(1, 2**40), min_size=1, max_size=12), st.floats(0.01, 1.0))
def test_no_device_has_more_than_its_share(registered: list[int], share: float) -> None:
    cap = sample_cap(registered, share)
    counted = [min(samples, cap) for samples in registered]
    assert min(counted) >= 1
    if share * len(registered) >= 1.001:
        # counts are whole numbers, so each may lack up to one sample
        assert max(counted) <= share * (sum(counted) + len(counted)) * (1 + 1e-9)


def test_with_no_share_to_bound_and_no_protection_it_is_the_plain_mean() -> None:
    for models in itertools.permutations([vector(1), vector(2), vector(9)]):
        mean, plain = RobustMean(vector(0), FederationSettings()), CohortMean()
        for model in models:
            mean.fold(model, 2)
            plain.fold(model, 2)
        assert averaged(mean) == averaged(plain)
