"""Networks whose channels cannot be followed everywhere are still counted in full, built whole and never half known."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.architecture import Architecture
from common.models import allow_network, describe
from common.models.description import BaseNetwork
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
