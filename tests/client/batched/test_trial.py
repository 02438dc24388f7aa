"""Which networks can be stacked: those whose layers can and that do nothing in between but what stays in a channel."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from client.batched.trial import template_of
from common.architecture import Architecture
from common.layout import Layout
from common.models.darts import PREFIX
from common.models.description import BaseNetwork
from common.models.networks import OWN
from common.network import Network


@dataclass(frozen=True)
class Written:
    """A network that is nothing but a function that makes its module."""

    make: Callable[[], nn.Module]
    input_shape: tuple[int, int, int] = (3, 8, 8)
    classes: int = 4

    @property
    def layout(self) -> Layout:
        floats = {name: one for name, one in self.make().state_dict().items() if one.is_floating_point()}
        return Layout(tuple(floats), tuple(tuple(one.shape) for one in floats.values()))

    def build(self, seed: int | None = None) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            return self.make()


def verdict(make: Callable[[], nn.Module]) -> str:
    found = template_of(cast(Network, Written(make)))
    return found if isinstance(found, str) else ""


def around(*layers: nn.Module) -> nn.Module:
    """A network of new layers like these, of 6 channels, between the first and the last."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), *deepcopy(layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


@pytest.mark.parametrize("model", [name for name in OWN if "110" not in name and "stemless" not in name])
def test_every_network_of_ours(model: str) -> None:
    shape = (3, 16, 16)
    found = template_of(Architecture.full(BaseNetwork(model, shape, 4)))
    assert isinstance(found, nn.Module)
    assert not list(found.parameters())


@pytest.mark.parametrize(
    "layers",
    [
        (nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
        (nn.BatchNorm2d(6, affine=False), nn.Hardswish()),
        (nn.Dropout(0.3), nn.Conv2d(6, 6, 1, stride=2)),
        (nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.Conv2d(6, 6, 3, groups=3, padding="same")),
        (nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6), nn.Sigmoid()),
    ],
    ids=str,
)
def test_what_stays_in_a_channel(layers: tuple[nn.Module, ...]) -> None:
    assert verdict(lambda: around(*layers)) == ""


def test_what_stays_in_a_feature() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 4, bias=False)
        )

    assert verdict(make) == ""


class Between(nn.Module):
    """A function of maps."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.softmax(1),
        lambda x: x - x.mean(dim=1, keepdim=True),
        lambda x: F.local_response_norm(x, 5),
        lambda x: x.flip(1),
        lambda x: torch.cat([x[:, :3], x[:, :3]], 1),
        lambda x: F.dropout(x, 0.5),
        lambda x: x / x.norm(),
        lambda x: x - x.mean(dim=0),
        lambda x: x.detach() * 1.0,
        lambda x: x.view(len(x), 6, 6, 6) * 2,
    ],
    ids=[
        "over classes",
        "mean of channels",
        "neighbours",
        "order",
        "side by side",
        "draws",
        "whole",
        "batch",
        "no gradient",
        "fixed shape",
    ],
)
def test_what_does_not_stay_in_a_channel_or_an_image_is_found_out(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    reason = verdict(lambda: around(Between(function)))
    assert reason.startswith(("it does more between its layers", "it does not take the channels of two devices"))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: nn.GroupNorm(2, 6), "its layer 1 is GroupNorm, which cannot be stacked"),
        (lambda: nn.PReLU(), "its layer 1 is PReLU, which cannot be stacked"),
        (lambda: nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"), "its layer 1 pads with reflect"),
        (lambda: nn.BatchNorm2d(6, momentum=None), "its layer 1 keeps no running average of a fixed momentum"),
        (lambda: nn.BatchNorm2d(6, track_running_stats=False), "its layer 1 keeps no running average"),
        (lambda: nn.BatchNorm2d(6).requires_grad_(False), "its layer 1 is not to be trained"),
    ],
    ids=["group norm", "prelu", "reflects", "cumulative", "no statistics", "frozen"],
)
def test_a_layer_that_cannot_be_stacked_is_named(layer: Callable[[], nn.Module], reason: str) -> None:
    assert verdict(lambda: around(layer())).startswith(reason)


def test_a_bare_parameter_is_named() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    assert verdict(lambda: around(Scaled())) == "its layer 1 is Scaled, which cannot be stacked"


def test_weights_that_two_layers_share() -> None:
    def make() -> nn.Module:
        layer = nn.Conv2d(6, 6, 1)
        return around(layer, nn.ReLU(), layer)

    assert verdict(make) != ""


def test_a_network_of_cells_joins_channels() -> None:
    found = template_of(Architecture.full(BaseNetwork(f"{PREFIX}4x3", (3, 16, 16), 4)))
    assert isinstance(found, str)


def test_the_trial_draws_nothing_from_whoever_asks() -> None:
    before: Any = torch.get_rng_state()
    verdict(lambda: around(nn.Dropout(0.25), nn.Tanh()))
    assert torch.equal(torch.get_rng_state(), before)
