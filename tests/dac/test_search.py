"""A search serves every budget with a nested family, and can be cut short anywhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.data.augment import Preprocessor
from common.errors import BudgetError, CheckpointError, FedDACError
from common.groups import SearchSettings
from common.learning import Feed
from common.models.description import BaseNetwork
from common.progress import Silent
from dac.recipe import RECIPES
from dac.search import Family, search
from tests.examples import slow

CNN = BaseNetwork("cnn", (1, 8, 8), 4, width=2.0)
FULL = Architecture.full(CNN).costs
BUDGETS = [
    DeviceBudget(macs=FULL.macs // 2),
    DeviceBudget(),
    DeviceBudget(params=FULL.params // 2),
    DeviceBudget(macs=FULL.macs // 3, params=FULL.params // 3),
    DeviceBudget(macs=FULL.macs * 10),
]
SETTINGS = SearchSettings(warmup_epochs=2, epochs_per_step=1, fine_tune_epochs=1, search_batch_size=8)


class Killed(Exception):
    """The process ended here."""


class KilledAfter(Silent):
    """Progress that ends the search at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def advance(self, stage: str, units: int, message: str) -> None:
        """Count down."""
        self.calls -= 1
        if self.calls == 0:
            raise Killed


def run(
    feeds: tuple[Feed, Feed],
    folder: Path,
    progress: Silent | None = None,
    budgets: list[DeviceBudget] = BUDGETS,
    settings: SearchSettings = SETTINGS,
    base: BaseNetwork = CNN,
    seed: int = 0,
    rows: list[dict[str, Any]] | None = None,
) -> Family:
    return search(
        base,
        budgets,
        *feeds,
        settings,
        seed=seed,
        accelerator=torch.device("cpu"),
        progress=progress or Silent(),
        checkpoint=folder / "search.safetensors",
        record=(rows if rows is not None else []).append,
    )


def assert_same(first: Family, second: Family) -> None:
    for one, other in zip(first.members, second.members, strict=True):
        assert one.architecture == other.architecture
        assert (one.validation_accuracy, one.parent, one.budget) == (
            other.validation_accuracy,
            other.parent,
            other.budget,
        )
        assert all(torch.equal(value, other.state[name]) for name, value in one.state.items())


def test_every_budget_gets_an_architecture_below_it(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    family = run(feeds, tmp_path)
    assert [member.budget for member in family.members] == BUDGETS
    for member in family.members:
        assert member.budget.admits(member.architecture.costs)
        module = member.architecture.build(0)
        module.load_state_dict(member.state)


def test_a_budget_that_does_not_bind_gets_the_whole_network(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    family = run(feeds, tmp_path)
    assert family.members[1].architecture == family.members[4].architecture == Architecture.full(CNN)


def test_the_family_is_nested_and_tighter_budgets_lie_inside_looser_ones(
    feeds: tuple[Feed, Feed], tmp_path: Path
) -> None:
    family = run(feeds, tmp_path)
    for member in family.members:
        if member.parent is not None:
            assert family.members[member.parent].architecture.contains(member.architecture)
    full, half_params, third = (family.members[number] for number in (1, 2, 3))
    assert full.architecture.contains(half_params.architecture)
    assert half_params.architecture.contains(third.architecture)


def test_the_binding_bound_is_met_within_the_cost_of_one_channel(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    member = run(feeds, tmp_path).members[0]
    architecture, largest = member.architecture, 0
    for group in architecture.description.prunable:
        more = {**architecture.sizes, group.name: architecture.sizes[group.name] + 1}

        largest = max(largest, architecture.description.costs(more).macs - architecture.costs.macs)
    assert 0 < BUDGETS[0].bound("macs") - architecture.costs.macs <= largest


def test_the_same_seed_finds_the_same_family_and_another_seed_another(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    first = run(feeds, tmp_path / "a")
    assert_same(first, run(feeds, tmp_path / "b"))
    other = run(feeds, tmp_path / "c", seed=1)
    assert first.members[0].architecture != other.members[0].architecture


@pytest.mark.parametrize(
    ("joint_epochs", "every"),
    [(2, 7), *slow((0, 1), (0, 3), (2, 1))],
)
def test_a_search_killed_at_any_point_ends_with_the_same_family(
    feeds: tuple[Feed, Feed], tmp_path: Path, joint_epochs: int, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dac.search.SHARE", 1.0)  # a checkpoint after every step, whatever it costs
    settings = replace(SETTINGS, joint_epochs=joint_epochs)
    expected = run(feeds, tmp_path / "whole", settings=settings)
    killed = 0
    for calls in range(1, 100, every):
        folder = tmp_path / f"killed-{calls}"
        try:
            run(feeds, folder, KilledAfter(calls), settings=settings)
        except Killed:
            killed += 1
            assert_same(run(feeds, folder, settings=settings), expected)
        else:
            break
    assert killed > 5 // every + 1


def test_what_was_trained_since_the_last_checkpoint_is_trained_again_in_the_same_way(
    feeds: tuple[Feed, Feed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dac.search.SHARE", 1e-9)  # the first epoch is written down, and no other before the end
    expected = run(feeds, tmp_path / "whole")
    with pytest.raises(Killed):
        run(feeds, tmp_path, KilledAfter(6))
    rows: list[dict[str, Any]] = []
    assert_same(run(feeds, tmp_path, rows=rows), expected)
    assert rows[0]["epoch"] == 2
    rows.clear()
    assert_same(run(feeds, tmp_path, rows=rows), expected)
    assert rows == []


def test_epochs_are_recorded_with_falling_costs(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    run(feeds, tmp_path, budgets=[BUDGETS[3]], rows=rows)
    assert rows[0]["macs"] == FULL.macs
    macs = [row["macs"] for row in rows]
    assert macs == sorted(macs, reverse=True)
    assert macs[-1] < BUDGETS[3].bound("macs")


def test_a_supernet_learns_and_so_do_its_members(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    settings = SearchSettings(warmup_epochs=15, epochs_per_step=2, fine_tune_epochs=5, search_batch_size=8)
    family = run(feeds, tmp_path, settings=settings)
    assert all(member.validation_accuracy >= 0.9 for member in family.members)


def test_budgets_below_the_floor_are_refused_before_any_training(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    with pytest.raises(BudgetError, match="smallest cnn"):
        run(feeds, tmp_path, budgets=[DeviceBudget(macs=100)], rows=rows)
    assert rows == []
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_search_is_refused(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    run(feeds, tmp_path, budgets=BUDGETS[:1])
    with pytest.raises(CheckpointError, match="other budgets, settings or data"):
        run(feeds, tmp_path, budgets=BUDGETS[:2])


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_checkpoint_of_other_images_is_refused(feeds: tuple[Feed, Feed], tmp_path: Path, part: str) -> None:
    run(feeds, tmp_path, budgets=BUDGETS[:1])
    train, validation = feeds
    images = (train if part == "training" else validation).images
    images.images[0, 0, 0, 0] += 1
    with pytest.raises(CheckpointError, match="other budgets, settings or data"):
        run((train, validation), tmp_path, budgets=BUDGETS[:1])


def test_a_checkpoint_of_another_augmentation_is_refused(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    run(feeds, tmp_path, budgets=BUDGETS[:1])
    train, validation = feeds
    before = train.preprocessor
    other = replace(train, preprocessor=Preprocessor(before.mean, before.std, "crop"))
    with pytest.raises(CheckpointError, match="other budgets, settings or data"):
        run((other, validation), tmp_path, budgets=BUDGETS[:1])


@pytest.mark.parametrize("damage", ["truncate", "flip", "text"])
def test_a_damaged_checkpoint_is_refused(feeds: tuple[Feed, Feed], tmp_path: Path, damage: str) -> None:
    run(feeds, tmp_path, budgets=BUDGETS[:1])
    path = tmp_path / "search.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[-10] ^= 255
        path.write_bytes(content)
    else:
        path.write_text("not tensors")
    with pytest.raises(CheckpointError, match="damaged"):
        run(feeds, tmp_path, budgets=BUDGETS[:1])


def test_divergence_is_an_error_that_says_what_to_change(feeds: tuple[Feed, Feed], tmp_path: Path) -> None:
    settings = SearchSettings(warmup_epochs=8, search_learning_rate=1e12, search_batch_size=8)
    with pytest.raises(FedDACError, match="lower --search-learning-rate"):
        run(feeds, tmp_path, settings=settings)


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_both_presets_search_mobilenet_v2(feeds: tuple[Feed, Feed], tmp_path: Path, recipe: str) -> None:
    base = BaseNetwork("mobilenet_v2", (1, 8, 8), 4, width=0.25)
    full = Architecture.full(base).costs
    budgets = [DeviceBudget(macs=int(full.macs * 0.7)), DeviceBudget(peak_memory_bytes=full.peak_memory_bytes * 2 // 3)]
    settings = SearchSettings(
        recipe=recipe, warmup_epochs=1, epochs_per_step=1, fine_tune_epochs=0, search_batch_size=20
    )
    family = run(feeds, tmp_path, budgets=budgets, base=base, settings=settings)
    assert all(member.budget.admits(member.architecture.costs) for member in family.members)


def test_smaller_members_learn_from_the_whole_network(
    feeds: tuple[Feed, Feed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = run(feeds, tmp_path / "taught")
    monkeypatch.setitem(RECIPES, "default", replace(RECIPES["default"], distillation=1e-9))  # listened to, hardly
    alone = run(feeds, tmp_path / "alone")
    assert [one.architecture for one in taught.members] == [one.architecture for one in alone.members]
    learned = [
        any(not torch.equal(value, without.state[name]) for name, value in with_teacher.state.items())
        for with_teacher, without in zip(taught.members, alone.members, strict=True)
    ]
    assert learned == [True, False, True, True, False]  # two budgets are met by the whole network itself
