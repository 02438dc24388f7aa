"""TwoCNN: the published network's counts, and its output against a second way of writing it down."""

import pytest
import torch
from torch import nn

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.models.description import BaseNetwork


@pytest.mark.parametrize(
    ("base", "params", "macs"),
    [
        (BaseNetwork("two_cnn", (3, 24, 24), 10), 1_664_970, 7_892_352),
        (BaseNetwork("two_cnn", (3, 24, 24), 100, width=4.0), 7_303_524, 93_040_128),
    ],
)
def test_counts_are_the_published_programs(base: BaseNetwork, params: int, macs: int) -> None:
    costs = Architecture.full(base).costs
    assert (costs.params, costs.macs) == (params, macs)


def test_it_computes_what_its_layers_say() -> None:
    module = Architecture.full(BaseNetwork("two_cnn", (3, 24, 24), 10)).build(0)
    layers = dict(module.named_children())
    pool = nn.MaxPool2d(2, padding=1)
    sequence = nn.Sequential(
        *(layers["conv1"], nn.ReLU(), pool, layers["conv2"], nn.ReLU(), pool, nn.AdaptiveAvgPool2d((7, 7))),
        *(nn.Flatten(), layers["hidden"], nn.ReLU(), layers["classifier"]),
    )
    images = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(images), sequence(images))


def test_weights_begin_with_glorots_variance_and_biases_at_zero() -> None:
    """Var = 2 / (inputs + outputs): here (32 x 25 + 64 x 25) for the second convolution."""
    state = Architecture.full(BaseNetwork("two_cnn", (3, 24, 24), 10)).build(0).state_dict()
    assert float(state["conv2.weight"].var()) == pytest.approx(2 / (32 * 25 + 64 * 25), rel=0.05)
    assert all(float(state[f"{layer}.bias"].abs().max()) == 0 for layer in ("conv1", "conv2", "hidden", "classifier"))


def test_channels_of_both_convolutions_and_of_the_hidden_layer_can_go() -> None:
    base = BaseNetwork("two_cnn", (3, 24, 24), 10)
    small = Architecture.with_kept(base, {"conv1": range(16), "conv2": range(32), "hidden": range(256)})
    # 16x75+16, 32x400+32, 256x(32x49)+256, 10x256+10
    assert small.costs.params == 1216 + 12832 + 401_664 + 2570
    assert small.build(0)(torch.zeros(2, 3, 24, 24)).shape == (2, 10)


def test_images_must_be_large_enough() -> None:
    with pytest.raises(ArchitectureError, match="two_cnn needs images of at least 6x6 pixels, not 5x9"):
        Architecture.full(BaseNetwork("two_cnn", (3, 5, 9), 10))
