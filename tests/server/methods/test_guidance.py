"""Guidance and what is removed by it, computed on paper."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.models.description import BaseNetwork
from server.methods.guidance import (
    channel_guidance,
    channels_kept,
    is_guided,
    is_trainable,
    normalised,
    parameters_kept,
)
from tests.examples import examples

# two pixels, three hidden units, two classes: hidden.weight (3, 2), hidden.bias (3,), classifier.weight (2, 3) and bias
SMALL = Architecture.with_kept(BaseNetwork("mlp", (1, 1, 2), 2), {"hidden": range(3)})
HIDDEN, BIAS, OUT, OUT_BIAS = slice(0, 6), slice(6, 9), slice(9, 15), slice(15, 17)


def vector(hidden: Any, bias: Any, out: Any, out_bias: Any) -> Any:
    return np.concatenate([np.asarray(one, np.float32).ravel() for one in (hidden, bias, out, out_bias)])


def test_the_vector_is_what_this_file_says() -> None:
    assert SMALL.layout.names == ("hidden.weight", "hidden.bias", "classifier.weight", "classifier.bias")
    assert SMALL.layout.shapes == ((3, 2), (3,), (2, 3), (2,))


def test_guidance_is_brought_to_one_scale_within_each_tensor() -> None:
    moved = vector([[1, 3], [5, 9], [1, 1]], [10, 20, 40], [[0, 0, 0], [0, 0, 0]], [7, 7])
    found = normalised(SMALL, moved, "min-max")
    wanted = vector([[0, 0.25], [0.5, 1], [0, 0]], [0, 1 / 3, 1], np.zeros((2, 3)), [1, 1])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)  # what did not move at all is 0, what moved alike is 1


def test_robust_guidance_is_measured_by_median_and_quartiles() -> None:
    moved = vector([[1, 2], [3, 4], [5, 9]], [10, 20, 40], np.zeros((2, 3)), [7, 7])
    found = normalised(SMALL, moved, "robust")
    # quartiles of 1, 2, 3, 4, 5, 9 are 2.25 and 4.75, their median 3.5; of 10, 20, 40 they are 15 and 30
    hidden = (np.array([1, 2, 3, 4, 5, 9]) - 3.5) / 2.5
    np.testing.assert_allclose(found[HIDDEN], hidden, rtol=1e-6)
    np.testing.assert_allclose(found[BIAS], (np.array([10, 20, 40]) - 20) / 15, rtol=1e-6)
    assert not found[OUT].any()
    assert found[OUT_BIAS].tolist() == [1, 1]


def test_the_share_below_the_quantile_of_all_guidance_together_goes() -> None:
    guidance = np.arange(17, dtype=np.float32)[::-1].copy()  # the last weights have the lowest
    kept = parameters_kept(SMALL, guidance, np.ones(17, np.float32), int(0.3 * 17))
    assert kept.tolist() == [True] * 12 + [False] * 5
    assert (guidance[~kept] < np.quantile(guidance, 0.3)).all()
    assert (guidance[kept] >= np.quantile(guidance, 0.3)).all()


def test_of_equal_guidance_the_smaller_weight_goes() -> None:
    weights = np.linspace(-1, 0.6, 17, dtype=np.float32)
    kept = parameters_kept(SMALL, np.zeros(17, np.float32), weights, 3)
    assert sorted(np.abs(weights[~kept]).tolist()) == sorted(np.abs(weights).tolist())[:3]


@pytest.mark.parametrize("model", ["mobilenet_v2", "resnet8"])
def test_batch_norms_are_neither_guided_nor_removed(model: str) -> None:
    network = Architecture.full(BaseNetwork(model, (3, 32, 32), 10, width=0.25))
    guided, trainable = is_guided(network), is_trainable(network)
    by_name = network.layout.unflatten(guided.astype(np.float32))
    norms = {layer.name for layer in network.description.layers if layer.kind == "batch_norm"}
    for name, part in by_name.items():
        assert bool((part == float(name.rpartition(".")[0] not in norms)).all()), name
    statistics = sum(part.numel() for name, part in by_name.items() if "running" in name)
    assert (~trainable).sum() == statistics > 0
    kept = parameters_kept(network, np.zeros(len(guided), np.float32), np.zeros(len(guided), np.float32), 10**9)
    assert np.array_equal(kept, ~guided)


def test_a_channels_guidance_is_the_mean_of_what_makes_it_on_one_scale_in_its_group() -> None:
    guidance = vector([[0.1, 0.2], [0.9, 0.6], [0.0, 0.3]], [0.3, 0.9, 0.0], np.ones((2, 3)), [1, 1])
    (found,) = channel_guidance(SMALL, guidance).items()
    # of three parameters each: (0.1 + 0.2 + 0.3) / 3 = 0.2, 0.8, 0.1; what reads the channels does not count
    assert found[0] == "hidden"
    np.testing.assert_allclose(found[1], [(0.2 - 0.1) / 0.7, 1, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("share", "floor", "kept"),
    [(0.0, 1, (0, 1, 2)), (0.1, 1, (0, 1)), (0.3, 1, (1,)), (0.9, 1, (1,)), (0.9, 2, (0, 1))],
)
def test_channels_go_until_the_share_of_the_parameters_is_gone(share: float, floor: int, kept: tuple[int, ...]) -> None:
    """Each of the three units takes 5 of the 17 parameters: 0.1 needs one of them, 0.3 (5.1) two."""
    guidance = vector([[0.1, 0.2], [0.9, 0.6], [0.0, 0.3]], [0.3, 0.9, 0.0], np.ones((2, 3)), [1, 1])
    found = channels_kept(SMALL, guidance, share, floor)
    assert found.indices["hidden"] == kept
    assert found.costs.params == 2 + 5 * len(kept)


@settings(max_examples=examples(15), deadline=None)
@given(
    share=st.floats(0, 0.95), seed=st.integers(0, 100), model=st.sampled_from(["mobilenet_v2", "resnet8", "two_cnn"])
)
def test_no_more_channels_go_than_the_share_takes_and_none_below_the_floor(share: float, seed: int, model: str) -> None:
    network = Architecture.full(BaseNetwork(model, (3, 16, 16), 10, width=0.25))
    guidance = np.random.default_rng(seed).random(network.layout.size, np.float32)
    found = channels_kept(network, guidance, share, 2)
    assert network.contains(found)
    assert all(size >= min(2, network.sizes[name]) for name, size in found.sizes.items())
    gone = 1 - found.costs.params / network.costs.params
    reachable = channels_kept(network, guidance, 1.0, 2)
    assert gone >= min(share, 1 - reachable.costs.params / network.costs.params) - 1e-12
    # a channel takes at most a few per cent of these networks
    assert gone <= share + 0.1


def test_in_a_network_that_was_cut_before_channels_are_counted_as_it_has_them() -> None:
    cut = Architecture.with_kept(SMALL.base, {"hidden": (4, 7, 11)})
    guidance = vector([[0.1, 0.2], [0.9, 0.6], [0.0, 0.3]], [0.3, 0.9, 0.0], np.ones((2, 3)), [1, 1])
    assert channels_kept(cut, guidance, 0.1, 1).indices["hidden"] == (4, 7)
