"""Networks whose channels cannot be followed everywhere are still counted in full, built whole and never half known."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.architecture import Architecture
from common.models import allow_network, describe
from common.models.description import BaseNetwork
from common.slicing import slice_state
from tests.common.models import strangers

SHAPE = (3, 8, 8)
UNFOLLOWED = ("instance_normed", "Attention")


def base_of(name: str) -> BaseNetwork:
    model = f"{strangers.__name__}:{name}"
    allow_network(model)
    return BaseNetwork(model, SHAPE, 10)


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_layers_whose_input_channels_are_lost_have_all_their_macs(name: str) -> None:
    architecture = Architecture.full(base_of(name))
    with torch.device("meta"):
        module, image = architecture.build().eval(), torch.zeros(1, *SHAPE)
    with FlopCounterMode(display=False) as counter:  # with gradients: torch counts nothing of attention's fused layer
        module(image)
    assert 2 * architecture.costs.macs == counter.get_total_flops()


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_every_convolution_and_linear_layer_has_macs(name: str) -> None:
    description = describe(base_of(name))
    sizes = description.full_sizes
    layers = [one for one in description.layers if one.kind not in ("batch_norm", "other")]
    module = getattr(strangers, name)(SHAPE, 10)
    assert layers
    for layer in layers:
        assert layer.macs(sizes) > 0, layer.name
        found = module.get_submodule(layer.name)
        assert layer.inputs(sizes) == (found.in_features if isinstance(found, nn.Linear) else found.in_channels)


def test_buffers_that_no_state_dict_holds_are_the_full_networks() -> None:
    full = Architecture.full(base_of("Windowed"))
    small = Architecture.with_kept(full.base, {"stem": range(8), "middle": (1, 5, 9)})
    state = slice_state(full.build(0).state_dict(), full, small)
    for module in (small.build(), small.build(0), small.build_from(state)):
        assert torch.equal(module.get_buffer("window"), torch.full((8, 8), 0.5))
        assert torch.equal(module.get_buffer("middle.mask"), torch.tensor([[1.0, 2.0, 3.0]]))
        assert torch.equal(module.get_buffer("scale").flatten(), torch.arange(16.0))
        assert module(torch.zeros(2, *SHAPE)).shape == (2, 10)


def test_channels_that_such_a_buffer_runs_over_stay() -> None:
    frozen = {group.name: group.frozen for group in describe(base_of("Windowed")).groups}
    assert frozen["last"] == "scale runs over it, which no state dict holds"
    assert not frozen["stem"]
    assert not frozen["middle"]


def test_a_layer_with_several_weights_of_its_own_by_hand() -> None:
    architecture = Architecture.full(base_of("adapted"))
    description = architecture.description
    stem, layer, adapter, head = 3 * 3 * 3 * 16 * 64, 16 * 64, 4 * (16 + 64), 64 * 10
    assert architecture.costs.macs == stem + layer + adapter + head == 29_632
    assert description.layer_by_name["4"].macs(architecture.sizes) == layer + adapter
    assert [one.name for one in description.readers("0")] == ["4"]
    assert all(group.frozen for group in description.groups)
