"""Averaging across cohorts: each weight of the base network over all devices that hold it."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.arrays import Vector
from common.models.description import BaseNetwork
from common.slicing import coordinates, slice_state
from server.aggregation import Total
from server.cohorts import Cohort
from server.overlap import average_across, batch_norm_positions
from tests.examples import examples

MLP = BaseNetwork("mlp", (1, 2, 2), 3)
CNN = BaseNetwork("cnn", (1, 12, 12), 3)
SMALL = BaseNetwork("mobilenet_v2", (3, 16, 16), 4, width=0.25)


def of(architecture: Architecture, value: float | Vector, name: str = "cohort-0") -> Cohort:
    weights = np.full(architecture.layout.size, value, np.float32) if np.isscalar(value) else value
    return Cohort(name, architecture, np.asarray(weights, np.float32), 0.5, [])


def total(weights: Vector, samples: int) -> Total:
    return Total(weights.astype(np.float64) * samples, samples)


def state(architecture: Architecture, weights: Vector) -> dict[str, torch.Tensor]:
    return architecture.layout.unflatten(weights)


def test_hand_computed_average_of_two_overlapping_cohorts() -> None:
    """Hidden channels 0, 1, 2 and 1, 2, 3: the weights of 1 and 2 are shared, those of 0 and 3 are not."""
    first = Architecture.with_kept(MLP, {"hidden": (0, 1, 2)})
    second = Architecture.with_kept(MLP, {"hidden": (1, 2, 3)})
    cohorts = [of(first, 0.0), of(second, 0.0, "cohort-1")]
    trained = [np.full(one.layout.size, value, np.float32) for one, value in ((first, 1.0), (second, 4.0))]
    totals = {"cohort-0": total(trained[0], 10), "cohort-1": total(trained[1], 20)}
    ours, theirs = average_across(cohorts, totals, updates=False, batch_norms=True)
    shared = (10 * 1.0 + 20 * 4.0) / 30
    names = [name for name, tensor in state(first, ours).items() if tensor.shape[0] == 3 and tensor.ndim == 2]
    rows = next(name for name in names if state(first, ours)[name].shape[1] == 4)
    assert state(first, ours)[rows][:, 0].tolist() == [1.0, shared, shared]
    assert state(second, theirs)[rows][:, 0].tolist() == [shared, shared, 4.0]


def test_hand_computed_updates_of_two_overlapping_cohorts() -> None:
    """From 10 to 13 with 10 samples, from 20 to 24 with 20: shared weights move by (10 x 3 + 20 x 4) / 30 = 11 / 3.

    A weight that only the first holds moves by 10 x 3 / 30 = 1, one that only the second holds by 20 x 4 / 30 = 8 / 3.
    """
    first = Architecture.with_kept(MLP, {"hidden": (0, 1, 2)})
    second = Architecture.with_kept(MLP, {"hidden": (1, 2, 3)})
    cohorts = [of(first, 10.0), of(second, 20.0, "cohort-1")]
    trained = [np.full(one.layout.size, value, np.float32) for one, value in ((first, 13.0), (second, 24.0))]
    totals = {"cohort-0": total(trained[0], 10), "cohort-1": total(trained[1], 20)}
    ours, theirs = average_across(cohorts, totals, updates=True, batch_norms=True)
    shared = np.isin(coordinates(first), coordinates(second))
    np.testing.assert_allclose(ours, np.where(shared, 10 + 11 / 3, 11.0), rtol=1e-6)
    shared = np.isin(coordinates(second), coordinates(first))
    np.testing.assert_allclose(theirs, np.where(shared, 20 + 11 / 3, 20 + 8 / 3), rtol=1e-6)


def test_updates_and_weights_are_the_same_for_cohorts_that_agree_where_all_hold_a_weight() -> None:
    """Elsewhere an update is the share of the samples behind it: 5 of 11."""
    large, small = Architecture.full(MLP), Architecture.with_kept(MLP, {"hidden": (1, 2)})
    rng = np.random.default_rng(1)
    values = rng.normal(size=large.layout.size).astype(np.float32)
    cohorts = [of(large, values), of(small, values[coordinates(small)], "cohort-1")]
    trained = [rng.normal(size=one.weights.size).astype(np.float32) for one in cohorts]
    totals = {one.name: total(trained[number], 5 + number) for number, one in enumerate(cohorts)}
    by_update = average_across(cohorts, totals, updates=True, batch_norms=True)
    by_weight = average_across(cohorts, totals, updates=False, batch_norms=True)
    shared = np.isin(coordinates(large), coordinates(small))
    np.testing.assert_allclose(by_update[1], by_weight[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_update[0][shared], by_weight[0][shared], rtol=1e-5, atol=1e-6)
    apart = values + 5 / 11 * (trained[0] - values)
    np.testing.assert_allclose(by_update[0][~shared], apart[~shared], rtol=1e-5, atol=1e-6)


def test_a_cohort_that_nobody_trained_moves_with_the_others() -> None:
    cohorts = [of(Architecture.full(MLP), 5.0), of(Architecture.full(MLP), 1.0, "cohort-1")]
    totals = {"cohort-1": total(np.full(cohorts[1].weights.size, 3.0, np.float32), 4)}
    idle, active = average_across(cohorts, totals, updates=True, batch_norms=True)
    assert (set(idle), set(active)) == ({7.0}, {3.0})


@pytest.mark.parametrize("updates", [True, False])
def test_one_cohort_alone_has_exactly_its_own_mean(updates: bool) -> None:
    architecture = Architecture.with_kept(SMALL, {})
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=architecture.layout.size).astype(np.float32) for _ in range(2)]
    both = Total(weights[0].astype(np.float64) * 3 + weights[1].astype(np.float64) * 7, 10)
    cohorts = [of(architecture, 0.1)]
    result = average_across(cohorts, {"cohort-0": both}, updates=updates, batch_norms=True)[0]
    assert np.array_equal(result, both.mean())


def test_a_cohort_that_nobody_trained_learns_from_the_others_and_keeps_the_rest() -> None:
    idle = Architecture.with_kept(MLP, {"hidden": (0, 1)})
    active = Architecture.with_kept(MLP, {"hidden": (1, 2)})
    cohorts = [of(idle, 5.0), of(active, 0.0, "cohort-1")]
    totals = {"cohort-1": total(np.full(active.layout.size, 2.0, np.float32), 4)}
    result = average_across(cohorts, totals, updates=False, batch_norms=True)[0]
    held = np.isin(coordinates(idle), coordinates(active))
    assert held.any()
    assert not held.all()
    assert set(result[held]) == {2.0}
    assert set(result[~held]) == {5.0}


def test_without_training_nothing_changes() -> None:
    cohorts = [of(Architecture.full(MLP), 1.5)]
    assert np.array_equal(average_across(cohorts, {}, updates=False, batch_norms=True)[0], cohorts[0].weights)


def test_local_batch_norms_are_averaged_within_their_cohort_only() -> None:
    large, small = Architecture.full(SMALL), Architecture.with_kept(SMALL, {narrow_group(): range(8)})
    cohorts = [of(large, 0.0), of(small, 0.0, "cohort-1")]
    totals = {
        name: total(np.full(one.layout.size, value, np.float32), 10)
        for name, one, value in (("cohort-0", large, 1.0), ("cohort-1", small, 3.0))
    }
    shared = average_across(cohorts, totals, updates=False, batch_norms=True)
    apart = average_across(cohorts, totals, updates=False, batch_norms=False)
    norms = batch_norm_positions(small)
    assert 0 < norms.sum() < len(norms)
    assert set(shared[1][norms]) == {2.0}
    assert set(apart[1][norms]) == {3.0}
    assert set(apart[0][batch_norm_positions(large)]) == {1.0}
    assert np.array_equal(apart[1][~norms], shared[1][~norms])


def test_batch_norm_statistics_are_no_updates() -> None:
    """A variance of 0.1 must not become 0.1 - 4.5 because another cohort's fell by 9: each cohort has its own."""
    large, small = Architecture.full(SMALL), Architecture.with_kept(SMALL, {narrow_group(): range(8)})
    cohorts = [of(large, 10.0), of(small, 0.1, "cohort-1")]
    totals = {"cohort-0": total(np.full(cohorts[0].weights.size, 1.0, np.float32), 10)}
    moved = average_across(cohorts, totals, updates=True, batch_norms=True)[1]
    totals["cohort-1"] = total(np.full(cohorts[1].weights.size, 0.2, np.float32), 10)
    trained = average_across(cohorts, totals, updates=True, batch_norms=True)[1]
    for weights, expected in ((moved, 0.1), (trained, 0.2)):
        statistics = [tensor for name, tensor in state(small, weights).items() if "running" in name]
        assert statistics
        assert all(torch.equal(tensor, torch.full_like(tensor, expected)) for tensor in statistics)
        others = [tensor for name, tensor in state(small, weights).items() if "running" not in name]
        assert not any(bool((tensor == expected).any()) for tensor in others)


def narrow_group() -> str:
    return next(group.name for group in Architecture.full(SMALL).description.prunable if group.size > 8)


def test_cohorts_of_different_base_networks_share_nothing() -> None:
    cohorts = [of(Architecture.full(MLP), 0.0), of(Architecture.full(CNN), 0.0, "cohort-1")]
    totals = {
        cohort.name: total(np.full_like(cohort.weights, value), 1)
        for cohort, value in zip(cohorts, (1.0, 2.0), strict=True)
    }
    assert [set(weights) for weights in average_across(cohorts, totals, updates=False, batch_norms=True)] == [
        {1.0},
        {2.0},
    ]


@st.composite
def subsets(draw: st.DrawFn, base: BaseNetwork) -> Architecture:
    groups = Architecture.full(base).description.groups
    kept: dict[str, Any] = {}
    for group in groups:
        if group.name not in ("input", "classes"):
            channels = st.sets(st.integers(0, group.size - 1), min_size=1)
            kept[group.name] = tuple(sorted(draw(channels)))
    return Architecture.with_kept(base, kept)


@pytest.mark.parametrize("base", [MLP, CNN], ids=["mlp", "cnn"])
@settings(max_examples=examples(25), deadline=None)
@given(data=st.data())
def test_coordinates_are_those_of_slicing(base: BaseNetwork, data: st.DataObject) -> None:
    architecture = data.draw(subsets(base))
    full = Architecture.full(base)
    values = np.arange(full.layout.size, dtype=np.float32)
    sliced = slice_state(state(full, values), full, architecture)
    assert np.array_equal(architecture.layout.flatten(sliced), values[coordinates(architecture)])


@settings(max_examples=examples(25), deadline=None)
@given(data=st.data())
def test_every_weight_is_the_mean_over_its_holders(data: st.DataObject) -> None:
    """Against the definition, weight by weight, in plain Python."""
    architectures = data.draw(st.lists(subsets(MLP), min_size=1, max_size=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    cohorts, totals, samples, trained = [], {}, {}, {}
    for number, architecture in enumerate(architectures):
        name = f"cohort-{number}"
        size = architecture.layout.size
        cohorts.append(of(architecture, rng.normal(size=size), name))
        if data.draw(st.booleans()):
            samples[name] = data.draw(st.integers(1, 1000))
            trained[name] = rng.normal(size=size).astype(np.float32)
            totals[name] = total(trained[name], samples[name])
    results = average_across(cohorts, totals, updates=False, batch_norms=True)
    for cohort, result in zip(cohorts, results, strict=True):
        for position, coordinate in enumerate(coordinates(cohort.network)):
            holders = [
                (
                    samples[other.name],
                    trained[other.name][np.flatnonzero(coordinates(other.network) == coordinate)],
                )
                for other in cohorts
                if other.name in totals and coordinate in coordinates(other.network)
            ]
            count = sum(n for n, _ in holders)
            expected = sum(n * float(w[0]) for n, w in holders) / count if count else cohort.weights[position]
            assert result[position] == pytest.approx(expected, rel=1e-6, abs=1e-7)
