"""Joint training makes a family's members slices of one network, and moves what they share by their mean gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import FedDACError
from common.groups import SearchSettings
from common.layout import State
from common.learning import Feed, distance, evaluate
from common.models.description import BaseNetwork
from common.progress import Silent
from common.slicing import coordinates
from dac.files import Member
from dac.joint import share_weights

CPU = torch.device("cpu")
MLP = BaseNetwork("mlp", (1, 8, 8), 4)
SMALL = Architecture.with_kept(MLP, {"hidden": range(20, 60)})
LARGE = Architecture.with_kept(MLP, {"hidden": range(10, 150)})
CNN = BaseNetwork("cnn", (1, 8, 8), 4)
MOBILE = BaseNetwork("mobilenet_v2", (1, 8, 8), 4, width=0.1)
SETTINGS = SearchSettings(joint_epochs=1, search_learning_rate=0.1, search_momentum=0.0, search_weight_decay=0.0)


def member(architecture: Architecture, seed: int) -> Member:
    return Member(architecture, DeviceBudget(), architecture.build(seed).state_dict(), 0.0)


def trained(
    members: list[Member], feeds: tuple[Feed, Feed], settings: SearchSettings = SETTINGS, seed: int = 0
) -> list[Member]:
    return share_weights(members, *feeds, settings, seed=seed, accelerator=CPU, progress=Silent())


def vector(member: Member) -> np.ndarray:
    return member.architecture.layout.flatten(member.state)


def gradients(architecture: Architecture, state: State, feed: Feed, wanted: torch.Tensor | None) -> np.ndarray:
    """Of the loss on all images of `feed`, with 0.7 of it the distance from `wanted`; flat like the weights."""
    module = architecture.build_from(state)
    (batch,) = feed.evaluation(CPU)
    logits = module(batch.images)
    loss = F.cross_entropy(logits, batch.labels)
    if wanted is not None:
        loss = 0.3 * loss + 0.7 * distance(logits, wanted)
    loss.backward()
    grads = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    return architecture.layout.flatten(grads)


def test_one_step_is_the_mean_gradient_of_the_members_that_hold_a_weight(feeds: tuple[Feed, Feed]) -> None:
    whole = replace(feeds[0], batch_size=len(feeds[0].images))
    full = Architecture.full(CNN)
    first, second = full.description.prunable[:2]
    large_one = Architecture.with_kept(CNN, {first.name: range(1, first.size)})
    small_one = Architecture.with_kept(CNN, {first.name: range(3, first.size), second.name: range(4, second.size)})
    large, small = member(large_one, 1), member(small_one, 2)
    found = trained([small, large], (whole, feeds[1]))

    size = full.layout.size
    start, total, holders = np.zeros(size), np.zeros(size), np.zeros(size)
    start[coordinates(small_one)] = vector(small)
    start[coordinates(large_one)] = vector(large)  # what both hold starts from the larger
    state = small_one.layout.unflatten(start[coordinates(small_one)].astype(np.float32))
    (batch,) = whole.evaluation(CPU)
    answers = large_one.build_from(large.state)(batch.images).detach()
    for architecture, own, wanted in ((large_one, large.state, None), (small_one, state, answers)):
        total[coordinates(architecture)] += gradients(architecture, own, whole, wanted)
        holders[coordinates(architecture)] += 1
    expected = start - 0.1 * total / np.maximum(holders, 1)
    assert holders.max() == 2
    for one in found:
        np.testing.assert_allclose(vector(one), expected[coordinates(one.architecture)], atol=1e-6)


def test_a_step_is_no_longer_than_the_recipe_allows(feeds: tuple[Feed, Feed]) -> None:
    whole = replace(feeds[0], batch_size=len(feeds[0].images))
    large = member(LARGE, 1)
    wild = replace(large, state={name: 30 * value for name, value in large.state.items()})

    def moved(recipe: str) -> float:
        found = trained([wild, member(SMALL, 2)], (whole, feeds[1]), replace(SETTINGS, recipe=recipe))
        return float(np.linalg.norm(vector(found[0]) - vector(wild)))

    assert moved("default") == pytest.approx(0.1 * 1.0, rel=1e-3)
    assert moved("paper") > 1.0


@pytest.mark.parametrize("base", [MLP, MOBILE], ids=["mlp", "mobilenet_v2"])
def test_members_agree_about_what_they_share_but_for_batch_norms(feeds: tuple[Feed, Feed], base: BaseNetwork) -> None:
    full = Architecture.full(base)
    group = full.description.prunable[0]
    smaller = Architecture.with_kept(base, {group.name: range(1, group.size)})
    found = trained([member(smaller, 1), member(full, 2)], feeds, replace(SETTINGS, joint_epochs=2))
    own, whole = found[0].state, full.layout.flatten(found[1].state)
    shared = smaller.layout.unflatten(whole[coordinates(smaller)])
    norms = {layer.name for layer in full.description.layers if layer.kind == "batch_norm"}
    compared = [name for name in shared if name.rpartition(".")[0] not in norms]
    assert compared
    assert all(torch.equal(own[name], shared[name]) for name in compared)
    if norms:
        *_, last = (name for name in shared if name.rpartition(".")[0] in norms and name.endswith("running_var"))
        assert not torch.equal(own[last], shared[last])


def test_all_members_learn_and_keep_their_place(feeds: tuple[Feed, Feed]) -> None:
    members = [member(SMALL, 1), member(LARGE, 2), member(Architecture.full(MLP), 3)]
    found = trained(members, feeds, replace(SETTINGS, joint_epochs=15))
    assert [one.architecture for one in found] == [one.architecture for one in members]
    for one in found:
        assert one.validation_accuracy > 0.9
        assert one.validation_accuracy == evaluate(one.architecture.build_from(one.state), feeds[1], CPU).accuracy


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(feeds: tuple[Feed, Feed]) -> None:
    members = [member(SMALL, 1), member(LARGE, 2)]
    first, second = trained(members, feeds), trained(members, feeds)
    assert all(np.array_equal(vector(one), vector(other)) for one, other in zip(first, second, strict=True))
    assert not np.array_equal(vector(first[0]), vector(trained(members, feeds, seed=1)[0]))


def test_one_member_alone_and_zero_epochs_change_nothing(feeds: tuple[Feed, Feed]) -> None:
    alone, both = [member(SMALL, 1)], [member(SMALL, 1), member(LARGE, 2)]
    assert trained(alone, feeds) == alone
    assert trained(both, feeds, replace(SETTINGS, joint_epochs=0)) == both


def test_divergence_is_an_error_that_says_what_to_change(feeds: tuple[Feed, Feed]) -> None:
    members = [member(SMALL, 1), member(LARGE, 2)]
    with pytest.raises(FedDACError, match="joint training diverged in epoch 1; lower --search-learning-rate"):
        trained(members, feeds, replace(SETTINGS, search_learning_rate=1e30))
