"""`--recipe uniform`: the family that plain scaling gives, trained for as many epochs as the search would train."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.errors import BudgetError
from common.groups import SearchSettings
from common.initial_weights import fresh
from common.learning import Feed
from common.models.description import BaseNetwork
from common.search_space import SearchSpace
from common.seeds import derive_seed
from dac.scaling import uniform
from dac.shrink import steps_between
from dac.supernet import Supernet
from tests.dac.test_search import Killed, KilledAfter, assert_same
from tests.dac.test_search import run as search_of

RESNET = BaseNetwork("resnet8", (1, 8, 8), 4)
FULL = Architecture.full(RESNET).costs
BUDGETS = [
    DeviceBudget(macs=FULL.macs // 2),
    DeviceBudget(params=FULL.params // 3),
    DeviceBudget(),
    DeviceBudget(macs=FULL.macs // 8),
]
SETTINGS = SearchSettings(
    recipe="uniform", warmup_epochs=2, epochs_per_step=2, step_share=0.5, fine_tune_epochs=1, search_batch_size=8
)


run = partial(search_of, budgets=BUDGETS, settings=SETTINGS, base=RESNET)


def test_every_budget_gets_the_widest_uniform_network_below_it(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    family = run(feeds, tmp_path)
    for budget, member in zip(BUDGETS, family.members, strict=True):
        assert member.architecture == uniform(RESNET, budget)
        if member.parent is not None:
            assert family.members[member.parent].architecture.contains(member.architecture)


def test_it_trains_as_many_epochs_as_the_steps_of_the_search_would_have(
    feeds: tuple[Feed, Feed], tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = []
    run(feeds, tmp_path, budgets=[BUDGETS[3]], rows=rows)
    whole, eighth = FULL.macs, uniform(RESNET, BUDGETS[3]).costs.macs
    assert [row["macs"] for row in rows] == [whole] * 2 + [eighth] * 2 * 3  # three halvings


def test_without_gates_the_network_is_trained_as_it_is() -> None:
    supernet = Supernet(Architecture.full(RESNET), "none", 0, torch.device("cpu"), SearchSpace("uniform", floor=1))
    assert supernet.gate_weights == []
    assert list(supernet.module.state_dict()) == list(Architecture.full(RESNET).build(0).state_dict())


def test_a_killed_run_ends_with_the_same_family(
    feeds: tuple[Feed, Feed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dac.search.SHARE", 1.0)
    expected = run(feeds, tmp_path / "whole")
    with pytest.raises(Killed):
        run(feeds, tmp_path / "killed", KilledAfter(5))  # after a removal, and a member or two
    assert_same(run(feeds, tmp_path / "killed"), expected)


def test_members_can_share_weights(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    family = run(feeds, tmp_path, settings=replace(SETTINGS, joint_epochs=1))
    whole, part = family.members[2], family.members[0]
    kept = part.architecture.layout.flatten(part.state)
    assert len(kept) == part.architecture.layout.size
    assert whole.architecture.contains(part.architecture)


def test_a_budget_below_one_channel_each_is_refused_before_any_training(
    feeds: tuple[Feed, Feed], tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = []
    with pytest.raises(BudgetError, match="no architecture fits"):
        run(feeds, tmp_path, budgets=[DeviceBudget(macs=10)], rows=rows)
    assert rows == []


@pytest.mark.parametrize(
    ("target", "share", "steps"),
    [
        (DeviceBudget(), 0.25, 0),
        (DeviceBudget(macs=100), 0.25, 1),  # bounds are strict
        (DeviceBudget(macs=99), 0.25, 1),
        (DeviceBudget(macs=75), 0.25, 1),
        (DeviceBudget(macs=74), 0.25, 2),
        (DeviceBudget(macs=51, params=13), 0.5, 3),
        (DeviceBudget(macs=1), 1.0, 1),
    ],
)
def test_steps_are_counted_by_the_resource_that_lies_farthest(target: DeviceBudget, share: float, steps: int) -> None:
    assert steps_between(Costs(100, 100, 400), target, share) == steps


def test_the_first_step_is_no_longer_than_the_rate_and_residual_blocks_begin_as_the_identity(
    feeds: tuple[Feed, Feed], tmp_path: Path
) -> None:
    whole = replace(feeds[0], batch_size=len(feeds[0].images)), feeds[1]  # one step an epoch
    settings = replace(SETTINGS, warmup_epochs=1, fine_tune_epochs=0, search_weight_decay=0.0, search_momentum=0.0)
    full = Architecture.full(RESNET)
    [member] = run(whole, tmp_path, budgets=[DeviceBudget()], settings=settings).members
    before = fresh(full, derive_seed(0, "supernet")).state_dict()
    trained = [one.name for one in full.description.tensors if one.trainable]
    length = sum(float((member.state[name] - before[name]).square().sum()) for name in trained) ** 0.5
    assert length == pytest.approx(settings.search_learning_rate, rel=1e-3)
