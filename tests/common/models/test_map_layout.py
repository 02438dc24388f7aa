"""A network whose forward is plain PyTorch trains, whichever way it flattens its maps."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.groups import SearchSettings
from common.learning import place
from common.models import allow_network
from common.models.description import BaseNetwork
from common.models.map_layout import map_layout
from tests.dac.images import bright_corners
from tests.dac.test_search import run

USERS = "tests.common.models.users:"
CPU = torch.device("cpu")
for one in ("tutorial", "tutorial_flattened", "counting"):
    allow_network(USERS + one)


def viewing(channels: int) -> Architecture:
    return Architecture.full(BaseNetwork(f"{USERS}tutorial", (channels, 8, 8), 4))


def halved(architecture: Architecture) -> Architecture:
    kept = {group.name: range(group.size // 2) for group in architecture.description.reducible}
    return Architecture.with_kept(architecture.base, kept)


def gradients(module: nn.Module, channels: int) -> dict[str, torch.Tensor]:
    images = torch.randn(5, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    images = images.contiguous(memory_format=torch.channels_last)
    module.train()(images).square().sum().backward()
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("part", ["whole", "reduced"])
def test_a_view_of_maps_trains_like_flatten(channels: int, part: str) -> None:
    network = viewing(channels) if part == "whole" else halved(viewing(channels))
    base = BaseNetwork(f"{USERS}tutorial_flattened", (channels, 8, 8), 4)
    other = Architecture(base, network.kept)
    state = network.build(0).state_dict()
    found = gradients(place(network.build_from(state), CPU), channels)
    expected = gradients(place(other.build_from(state), CPU), channels)
    assert found.keys() == expected.keys() == dict(network.build(0).named_parameters()).keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-5) for name in found)


def test_copies_and_pickles_of_such_a_network_keep_their_layout() -> None:
    module = viewing(3).build(0)
    for one in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert gradients(place(one, CPU), 3)


def test_only_such_a_network_has_contiguous_maps() -> None:
    assert map_layout(viewing(1).build(0)) == torch.contiguous_format
    for model in (f"{USERS}tutorial_flattened", "cnn"):
        assert map_layout(Architecture.full(BaseNetwork(model, (1, 8, 8), 4)).build(0)) == torch.channels_last


def test_it_is_searched(tmp_path: Path) -> None:
    """With gates, a joint training of all networks, and their final trainings."""
    whole = viewing(1)
    settings = SearchSettings(
        search_space="all",
        channel_floor=2,
        channel_multiple=2,
        warmup_epochs=1,
        epochs_per_step=1,
        fine_tune_epochs=1,
        joint_epochs=1,
    )
    budgets = [DeviceBudget(), DeviceBudget(macs=whole.costs.macs // 2)]
    family = run(
        (bright_corners(40, 0), bright_corners(20, 1)), tmp_path, budgets=budgets, settings=settings, base=whole.base
    )
    assert [one.architecture.costs.macs <= whole.costs.macs // 2 for one in family.members] == [False, True]
