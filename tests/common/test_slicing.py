"""A smaller network's weights are the right entries of a larger one's, and it computes the same function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.models import describe
from common.models.description import Axis, BaseNetwork
from common.slicing import Cut, cut, slice_state
from tests.common.strategies import architectures, subsets
from tests.examples import examples

CNN = BaseNetwork("cnn", (1, 8, 8), 10)
MOBILENET = BaseNetwork("mobilenet_v2", (1, 8, 8), 10, 0.5)


def trained(architecture: Architecture, seed: int = 0) -> nn.Module:
    """A module whose batch norms have statistics, scales and shifts of their own."""
    module = architecture.build(seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                assert tensor is not None
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return module.eval()


def test_positions_count_within_the_larger_architecture() -> None:
    larger = Architecture.with_kept(CNN, {"conv1": (0, 2, 3, 5)})
    smaller = Architecture.with_kept(CNN, {"conv1": (2, 5)})
    assert cut(larger, smaller).positions["conv1"].tolist() == [1, 3]


def test_a_convolution_loses_rows_and_columns() -> None:
    weight = torch.arange(4 * 3).reshape(4, 3, 1, 1)
    kept = Cut({"target": torch.tensor([1, 3]), "source": torch.tensor([0, 2])}, {"target": 4, "source": 3})
    result = kept.tensor(weight, ((Axis("target"),), (Axis("source"),), (), ()))
    assert result.flatten(1).tolist() == [[3, 5], [9, 11]]


def test_a_depthwise_convolution_loses_filters() -> None:
    weight = torch.arange(3 * 4).reshape(3, 1, 2, 2)
    result = Cut({"inner": torch.tensor([2])}, {"inner": 3}).tensor(weight, ((Axis("inner"),), (), (), ()))
    assert result.tolist() == [[[[8, 9], [10, 11]]]]


def test_a_linear_layer_after_flattening_loses_the_block_of_each_channel() -> None:
    # three channels of two positions each are the features (0, 1), (2, 3) and (4, 5)
    weight = torch.arange(12).reshape(2, 6)
    kept = Cut({"hidden": torch.tensor([0, 1]), "conv": torch.tensor([0, 2])}, {"hidden": 2, "conv": 3})
    result = kept.tensor(weight, ((Axis("hidden"),), (Axis("conv", spread=2),)))
    assert result.tolist() == [[0, 1, 4, 5], [6, 7, 10, 11]]


def test_joined_channels_are_cut_each_from_its_own_stretch() -> None:
    # a reader of a (2 channels, 1 entry each) and b (2 channels, 2 entries each), one after the other
    kept = Cut({"a": torch.tensor([1]), "b": torch.tensor([0])}, {"a": 2, "b": 2})
    assert kept.tensor(torch.arange(6), ((Axis("a"), Axis("b", spread=2)),)).tolist() == [1, 2, 3]


def test_the_step_counter_of_a_batch_norm_is_kept() -> None:
    counter = torch.tensor(7)
    result = Cut({}, {}).tensor(counter, ())
    assert result == 7
    assert result is not counter


def test_the_channels_of_a_real_network_by_hand() -> None:
    full = Architecture.full(CNN)
    state = full.build(seed=0).state_dict()
    small = slice_state(state, full, Architecture.with_kept(CNN, {"conv1": (1, 4), "conv2": (0, 3)}))
    assert torch.equal(small["conv1.weight"], state["conv1.weight"][[1, 4]])
    assert torch.equal(small["conv1.bias"], state["conv1.bias"][[1, 4]])
    assert torch.equal(small["conv2.weight"], state["conv2.weight"][[0, 3]][:, [1, 4]])
    assert torch.equal(small["hidden1.weight"], state["hidden1.weight"][:, [0, 1, 2, 3, 12, 13, 14, 15]])  # 2x2 each
    assert torch.equal(small["classifier.weight"], state["classifier.weight"])


@settings(max_examples=examples(20), deadline=None)
@given(st.data())
def test_a_slice_of_a_slice_is_the_direct_slice(data: st.DataObject) -> None:
    largest = data.draw(architectures(widths=(0.5,)))
    middle = data.draw(subsets(largest))
    smallest = data.draw(subsets(middle))
    state = trained(largest).state_dict()
    twice = slice_state(slice_state(state, largest, middle), middle, smallest)
    direct = slice_state(state, largest, smallest)
    assert list(twice) == list(direct) == list(state)
    assert all(torch.equal(twice[name], direct[name]) for name in direct)
    smallest.build(seed=0).load_state_dict(direct, strict=True)


def test_slicing_to_itself_copies() -> None:
    full = Architecture.full(CNN)
    state = full.build(seed=0).state_dict()
    copy = slice_state(state, full, full)
    assert all(torch.equal(copy[name], state[name]) for name in state)
    assert all(copy[name].data_ptr() != state[name].data_ptr() for name in state)


def test_names_that_are_not_the_networks_are_left_out() -> None:
    full = Architecture.full(CNN)
    state = {**full.build(seed=0).state_dict(), "gate1.values": torch.ones(6)}
    assert "gate1.values" not in slice_state(state, full, full)


def test_channels_the_larger_one_lacks_are_refused() -> None:
    larger = Architecture.with_kept(CNN, {"conv1": (0, 1)})
    with pytest.raises(ArchitectureError, match="channels that the larger one does not have"):
        slice_state(larger.build(seed=0).state_dict(), larger, Architecture.full(CNN))


def silence(state: dict[str, torch.Tensor], larger: Architecture, smaller: Architecture) -> None:
    """Zero what every later layer reads of the channels that `smaller` lacks."""
    for group in larger.description.prunable:
        kept = set(smaller.indices[group.name])
        removed = [place for place, channel in enumerate(larger.indices[group.name]) if channel not in kept]
        for layer in larger.description.readers(group.name):
            (axis,) = layer.source
            columns = [place * axis.spread + offset for place in removed for offset in range(axis.spread)]
            state[f"{layer.name}.weight"][:, columns] = 0


@settings(max_examples=examples(15), deadline=None)
@given(
    st.data(), st.sampled_from([CNN, BaseNetwork("cnn", (3, 20, 17), 4), BaseNetwork("mlp", (1, 8, 8), 10), MOBILENET])
)
def test_a_smaller_network_computes_what_the_larger_does_without_those_channels(
    data: st.DataObject, base: BaseNetwork
) -> None:
    larger = Architecture.full(base)
    smaller = data.draw(subsets(larger))
    module = trained(larger)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    silence(state, larger, smaller)
    module.load_state_dict(state)
    small = smaller.build(seed=1).eval()
    small.load_state_dict(slice_state(state, larger, smaller))
    images = torch.randn(4, *base.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, result = module(images), small(images)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6 * max(1.0, float(expected.abs().max())))


def test_stages_can_be_sliced_too() -> None:
    # methods that cut every layer, not only the inner channels of blocks, use the same function
    full = Architecture.full(MOBILENET)
    halves = {
        group.name: range(group.size // 2)
        for group in describe(MOBILENET).groups
        if group.name not in ("input", "classes")
    }
    half = Architecture.with_kept(MOBILENET, halves)
    module = half.build(seed=0).eval()
    module.load_state_dict(slice_state(trained(full).state_dict(), full, half), strict=True)
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
