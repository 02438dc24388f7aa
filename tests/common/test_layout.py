"""A model on the wire: one vector there and back, and a hash that tells layouts apart."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from common.architecture import Architecture
from common.errors import MessageError
from common.layout import load_weights
from common.models.description import BaseNetwork
from common.slicing import slice_state
from tests.common.strategies import architectures
from tests.examples import examples

CNN = BaseNetwork("cnn", (1, 8, 8), 10)
MOBILENET = BaseNetwork("mobilenet_v2", (1, 8, 8), 10, 0.25)


def test_the_size_of_a_layout() -> None:
    # parameters, and for each channel of a batch norm a running mean and variance
    full = Architecture.full(BaseNetwork("mobilenet_v2", (3, 32, 32), 10))
    norms = 2 * (32 + 2 * 7_136 + 1_504 + (16 + 24 + 96 + 320) + 1_280)
    assert full.layout.size == 2_296_922 + norms
    assert (Architecture.full(BaseNetwork("cnn", (3, 32, 32), 10))).layout.size == 62_006


def test_order_and_values_by_hand() -> None:
    architecture = Architecture.with_kept(BaseNetwork("mlp", (1, 1, 2), 2), {"hidden": (0, 5)})
    layout = architecture.layout
    assert layout.names == ("hidden.weight", "hidden.bias", "classifier.weight", "classifier.bias")
    assert layout.shapes == ((2, 2), (2,), (2, 2), (2,))
    state = layout.unflatten(np.arange(12, dtype=np.float32))
    assert state["hidden.weight"].tolist() == [[0, 1], [2, 3]]
    assert state["classifier.bias"].tolist() == [10, 11]
    assert layout.flatten(state).tolist() == list(range(12))


@settings(max_examples=examples(15), deadline=None)
@given(architectures(widths=(0.5,)))
def test_flatten_and_unflatten_are_inverse(architecture: Architecture) -> None:
    layout = architecture.layout
    state = architecture.build(seed=0).state_dict()
    vector = layout.flatten(state)
    assert vector.dtype == np.float32
    assert vector.shape == (layout.size,)
    again = layout.unflatten(vector)
    assert list(again) == [name for name, tensor in state.items() if tensor.is_floating_point()]
    assert all(torch.equal(again[name], state[name]) for name in again)
    assert np.array_equal(layout.flatten(again), vector)


def test_memory_order_does_not_change_the_vector() -> None:
    architecture = Architecture.full(MOBILENET)
    module = architecture.build(seed=0)
    before = architecture.layout.flatten(module.state_dict())
    module.to(memory_format=torch.channels_last)
    assert np.array_equal(architecture.layout.flatten(module.state_dict()), before)


def test_unflattened_tensors_are_copies() -> None:
    layout = Architecture.full(CNN).layout
    vector = np.zeros(layout.size, dtype=np.float32)
    layout.unflatten(vector)["conv1.weight"].fill_(1)
    assert not vector.any()


@pytest.mark.parametrize("shape", [(0,), (5,), (1, 16_000), ()])
def test_a_vector_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    layout = Architecture.full(CNN).layout
    with pytest.raises(MessageError, match=f"the model has {layout.size} values"):
        layout.unflatten(np.zeros(shape, dtype=np.float32))


def test_the_hash_depends_on_names_and_sizes_not_on_which_channels() -> None:
    def kept(channels: tuple[int, ...]) -> str:
        return Architecture.with_kept(CNN, {"conv1": channels}).layout.hash

    assert kept((0, 1)) == kept((2, 5)) != kept((0, 1, 2))
    assert len(kept((0, 1))) == 64
    hashes = {Architecture.full(BaseNetwork(*base)).layout.hash for base in BASES}
    assert len(hashes) == len(BASES)


BASES: list[tuple[str, tuple[int, int, int], int]] = [
    ("cnn", (1, 8, 8), 10),
    ("cnn", (1, 8, 8), 9),
    ("cnn", (3, 8, 8), 10),
    ("cnn", (1, 32, 32), 10),
    ("mlp", (1, 8, 8), 10),
    ("mobilenet_v2", (1, 8, 8), 10),
]


def test_loading_leaves_step_counters_alone_and_shares_no_memory() -> None:
    architecture = Architecture.full(MOBILENET)
    layout = architecture.layout
    source, target = architecture.build(seed=0), architecture.build(seed=1)
    target.get_buffer("stem_norm.num_batches_tracked").fill_(5)
    vector = layout.flatten(source.state_dict())
    pointer = target.get_parameter("stem_conv.weight").data_ptr()
    load_weights(target, layout.unflatten(vector))
    assert np.array_equal(layout.flatten(target.state_dict()), vector)
    assert target.get_buffer("stem_norm.num_batches_tracked") == 5
    assert target.get_parameter("stem_conv.weight").data_ptr() == pointer
    assert target.get_parameter("stem_conv.weight").requires_grad


def test_a_sliced_state_has_the_smaller_layout() -> None:
    full = Architecture.full(CNN)
    small = Architecture.with_kept(CNN, {"conv2": (1, 7), "hidden1": range(40, 60)})
    vector = small.layout.flatten(slice_state(full.build(seed=0).state_dict(), full, small))
    assert vector.shape == (small.layout.size,)
