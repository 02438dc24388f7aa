"""Weights that a network's author froze (`requires_grad_(False)`) are those of the author at the end, to the bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.groups import SearchSettings, TrainSettings
from common.initial_weights import fresh
from common.layout import State
from common.learning import Feed
from common.models import allow_network
from common.models.description import BaseNetwork
from common.progress import Silent
from common.search_space import SearchSpace
from common.slicing import slice_state
from dac.search import Family, search
from dac.supernet import Supernet
from dac.train import train_architecture

FROZEN = BaseNetwork("tests.common.models.users:frozen_backbone", (1, 8, 8), 4)
allow_network(FROZEN.model)
FULL = Architecture.full(FROZEN)
CPU = torch.device("cpu")
SETTINGS = SearchSettings(
    warmup_epochs=2, epochs_per_step=1, fine_tune_epochs=1, joint_epochs=1, search_batch_size=8, channel_floor=2
)


def authors(part: Architecture) -> State:
    """What the author set and froze, of the channels of `part`."""
    module = FULL.build(5)
    frozen = {name: value for name, value in module.named_parameters() if not value.requires_grad}
    return slice_state(frozen, FULL, part)


def assert_untouched(architecture: Architecture, state: State) -> None:
    wanted = authors(architecture)
    assert {name.partition(".")[0] for name in wanted} >= {"stem", "norm"}
    assert {name: torch.equal(state[name], value) for name, value in wanted.items()} == dict.fromkeys(wanted, True)


def searched(feeds: tuple[Feed, Feed], folder: Path, recipe: str) -> Family:
    budgets = [DeviceBudget(macs=FULL.costs.macs * share // 10) for share in (7, 4)]
    return search(
        FROZEN,
        budgets,
        *feeds,
        replace(SETTINGS, recipe=recipe),
        seed=0,
        accelerator=CPU,
        progress=Silent(),
        checkpoint=folder / "search.safetensors",
        record=lambda _: None,
    )


@pytest.mark.parametrize("recipe", ["default", "paper", "uniform"])
def test_search_fine_tuning_and_joint_training_leave_them(
    feeds: tuple[Feed, Feed], tmp_path: Path, recipe: str
) -> None:
    family = searched(feeds, tmp_path, recipe)
    assert len({member.architecture for member in family.members}) == 2
    for member in family.members:
        assert_untouched(member.architecture, member.state)


def test_a_gate_that_ends_in_a_frozen_layer_is_ranked_and_stays_open(feeds: tuple[Feed, Feed]) -> None:
    supernet = Supernet(FULL, "after-depthwise", 0, CPU, SearchSpace("all"))
    supernet.module.train()
    supernet.module(torch.randn(8, 1, 8, 8)).square().sum().backward()
    held = {name: not gate.weight.requires_grad for name, gate in supernet.gates.items()}
    assert held == {"stem": True, "body": False, "block.first": False, "last": False, "block": True}
    for name, gate in supernet.gates.items():
        assert (gate.weight.grad is None) == held[name]
        assert bool(gate.saliency.any()), name


def test_training_to_the_end_leaves_them(feeds: tuple[Feed, Feed]) -> None:
    small = Architecture.with_kept(FROZEN, {"stem": (1, 3, 6), "body": (0, 2, 5)})
    settings = TrainSettings(epochs=2, learning_rate=0.05)
    for state in (None, fresh(small, 1).state_dict()):
        found = train_architecture(small, state, *feeds, settings, seed=0, accelerator=CPU, progress=Silent())
        assert_untouched(small, found.state)
