"""Bottleneck ResNets: counted to the last parameter, and halves that fit together."""

import pytest
import torch

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.layout import load_weights
from common.models.bottleneck import (
    DEVICE_NETWORK,
    STEM,
    STEMLESS,
    WHOLE,
    Bottleneck,
    BottleneckResNet,
    clipped,
    feature_shape,
)
from common.models.description import BaseNetwork

IMAGE, FEATURES = (3, 32, 32), (16, 32, 32)
SMALL = BaseNetwork(DEVICE_NETWORK, (3, 8, 8), 10)


@pytest.mark.parametrize(
    ("model", "shape", "params", "macs"),
    [
        # published program and /or counted by hand, with ten classes
        (DEVICE_NETWORK, IMAGE, 10_586, 9_618_048),
        ("resnet56" + STEMLESS, FEATURES, 590_858, 86_772_224),
        ("resnet110" + STEMLESS, FEATURES, 1_147_274, 166_988_288),
        ("resnet56" + WHOLE, IMAGE, 591_322, 87_214_592),
        ("resnet110" + WHOLE, IMAGE, 1_147_738, 167_430_656),
    ],
)
def test_the_counts_are_those_of_the_published_networks(
    model: str, shape: tuple[int, int, int], params: int, macs: int
) -> None:
    costs = Architecture.full(BaseNetwork(model, shape, 10)).costs
    assert (costs.params, costs.macs) == (params, macs)


def test_the_device_network_by_hand() -> None:
    macs = 3 * 9 * 16  # stem, per pixel
    macs += 16 * 16 + 16 * 9 * 16 + 16 * 64 + 16 * 64  # first block, with its shortcut
    macs += 64 * 16 + 16 * 9 * 16 + 16 * 64  # second block
    assert Architecture.full(BaseNetwork(DEVICE_NETWORK, IMAGE, 10)).costs.macs == 32 * 32 * macs + 64 * 10


@pytest.mark.parametrize(("model", "layers"), [("resnet11", 11), ("resnet29", 29), ("resnet56", 56)])
def test_the_name_counts_the_layers(model: str, layers: int) -> None:
    module = Architecture.full(BaseNetwork(model + WHOLE, IMAGE, 10)).build(0)
    assert isinstance(module, BottleneckResNet)
    inner = sum(3 for block in module.blocks if isinstance(block, Bottleneck))
    assert inner + 2 == layers  # the shortcuts' convolutions are not counted, as He et al. do not


def test_a_stem_and_a_network_without_one_are_a_whole_network() -> None:
    whole = Architecture.full(BaseNetwork("resnet11" + WHOLE, (3, 8, 8), 10)).build(1)
    rest = Architecture.full(BaseNetwork("resnet11" + STEMLESS, (16, 8, 8), 10)).build(2)
    small = Architecture.full(SMALL).build(3)
    assert isinstance(small, BottleneckResNet)
    stem = {name: values for name, values in small.state_dict().items() if name.startswith(STEM)}
    assert set(whole.state_dict()) == set(rest.state_dict()) | set(stem)
    load_weights(whole, {**rest.state_dict(), **stem})
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for module in (whole, rest, small):
        module.eval()
    with torch.no_grad():
        features = small.features(images)
        assert features.shape == (2, *feature_shape(SMALL)) == (2, *small.feature_shape)
        assert features.min() >= 0
        assert torch.equal(whole(images), rest(features))
        assert torch.equal(small(images), small.classify(features))


def test_the_first_blocks_of_the_device_network_are_those_of_a_whole_one_by_name_and_shape() -> None:
    whole = Architecture.full(BaseNetwork("resnet56" + WHOLE, (3, 8, 8), 10)).build(0).state_dict()
    small = Architecture.full(SMALL).build(0).state_dict()
    fitting = [name for name in small if name in whole and whole[name].shape == small[name].shape]
    assert set(small) - set(fitting) == {"classifier.weight"}


@pytest.mark.parametrize("largest", [4, 0.1, 1e-7, 6e4])
def test_a_name_says_where_features_are_cut(largest: float) -> None:
    plain = Architecture.full(BaseNetwork("resnet11" + WHOLE, (3, 8, 8), 10))
    cut = Architecture.full(BaseNetwork(clipped("resnet11" + WHOLE, largest), (3, 8, 8), 10))
    assert Architecture.from_json(cut.to_json()) == cut
    assert (cut.layout, cut.costs.macs, cut.costs.params) == (plain.layout, plain.costs.macs, plain.costs.params)
    state = plain.build(0).state_dict()
    module, rest = cut.build_from(state).eval(), plain.build_from(state).eval()
    assert isinstance(rest, BottleneckResNet)
    images = 10 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(module(images), rest.classify(rest.features(images).clamp(max=largest)))


@pytest.mark.parametrize(
    "limit", ["", "0.0", "4", "04.0", "-1.0", "nan", "inf", "1e999", "4.0_clip_4.0", "4.0\n", "1" * 99]
)
def test_other_limits_name_no_network(limit: str) -> None:
    with pytest.raises(ArchitectureError, match="is cut at no limit"):
        Architecture.full(BaseNetwork(f"resnet11{WHOLE}_clip_{limit}", (3, 8, 8), 10))


@pytest.mark.parametrize("name", ["resnet8" + WHOLE, "resnet11" + STEMLESS, "resnet8", "mlp"])
def test_other_networks_are_not_cut(name: str) -> None:
    with pytest.raises(ArchitectureError, match="unknown base network"):
        Architecture.full(BaseNetwork(clipped(name, 4), (3, 8, 8), 10))
