"""Pruning a trained network: which channels go, that budgets hold strictly, and that the rest keep their weights."""

from collections.abc import Callable

import pytest
import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError, BudgetError
from common.layout import State
from common.models.description import BaseNetwork
from common.search_space import SearchSpace
from dac.pruning import magnitude, slimming, slimming_penalty, weight_norms

BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
SMALL = BaseNetwork("mobilenet_v2", (1, 8, 8), 4, width=0.25)
CNN = BaseNetwork("cnn", (1, 8, 8), 4)
WHOLE_SPACE = SearchSpace("all", floor=4, multiple=1)
Pruning = Callable[[Architecture, State, DeviceBudget, SearchSpace], tuple[Architecture, State]]


def scaled(architecture: Architecture, seed: int) -> State:
    """Weights whose batch-norm scales all differ."""
    generator = torch.Generator().manual_seed(seed)
    state = architecture.build(0).state_dict()
    return {
        name: torch.rand(value.shape, generator=generator) if name.endswith("norm.weight") else value
        for name, value in state.items()
    }


@pytest.mark.parametrize("pruning", [magnitude, slimming])
@pytest.mark.parametrize("share", [0.5, 0.12, 0.06])
def test_budgets_hold_strictly_and_what_stays_keeps_its_weights(pruning: Pruning, share: float) -> None:
    full = Architecture.full(BASE)
    state, budget = scaled(full, 0), DeviceBudget(macs=int(full.costs.macs * share))
    smaller, inherited = pruning(full, state, budget, WHOLE_SPACE)
    assert budget.admits(smaller.costs)
    assert full.contains(smaller)
    assert not smaller.removed
    stem = list(smaller.indices["stem"])
    assert torch.equal(inherited["stem_norm.weight"], state["stem_norm.weight"][stem])
    smaller.build(0).load_state_dict(inherited)


@pytest.mark.parametrize("pruning", [magnitude, slimming])
def test_a_budget_that_does_not_bind_removes_nothing(pruning: Pruning) -> None:
    full = Architecture.full(BASE)
    assert pruning(full, scaled(full, 0), DeviceBudget(), WHOLE_SPACE)[0] == full


@pytest.mark.parametrize("pruning", [magnitude, slimming])
def test_a_budget_below_the_floor_is_refused(pruning: Pruning) -> None:
    full = Architecture.full(BASE)
    with pytest.raises(BudgetError, match="smallest mobilenet_v2"):
        pruning(full, scaled(full, 0), DeviceBudget(params=1000), WHOLE_SPACE)


def test_magnitude_takes_the_same_share_of_every_group() -> None:
    full = Architecture.full(BASE)
    budget = DeviceBudget(macs=full.costs.macs // 4)
    smaller, _ = magnitude(full, full.build(0).state_dict(), budget, WHOLE_SPACE)
    groups = [group for group in full.description.reducible if smaller.sizes[group.name] > WHOLE_SPACE.least(group)]
    # the kept share of each group is the common one, rounded up to a channel
    low = max((smaller.sizes[group.name] - 1) / group.size for group in groups)
    high = min(smaller.sizes[group.name] / group.size for group in groups)
    assert low < high


def test_slimming_has_one_threshold_for_the_whole_network() -> None:
    full = Architecture.full(BASE)
    state = scaled(full, 1)
    space = SearchSpace("inner", floor=1, multiple=1)
    smaller, _ = slimming(full, state, DeviceBudget(macs=full.costs.macs * 6 // 10), space)
    kept, gone = [], []
    for number in range(17):
        scales = state[f"blocks.{number}.depthwise_norm.weight"].tolist()
        stays = set(smaller.indices[f"block{number}.inner"])
        kept += [scale for channel, scale in enumerate(scales) if channel in stays]
        gone += [scale for channel, scale in enumerate(scales) if channel not in stays]
    assert max(gone) < min(kept)


def test_a_channels_norm_counts_what_writes_and_reads_it() -> None:
    architecture = Architecture.full(SMALL)
    state = {name: torch.ones_like(tensor) for name, tensor in architecture.build(0).state_dict().items()}
    state["blocks.3.expand_conv.weight"][5] = -2.0
    state["blocks.3.depthwise_conv.weight"][6] = 0.0
    state["blocks.3.project_conv.weight"][:, 7] = 3.0
    norms = weight_norms(architecture, state)["block3.inner"]
    source, target = 8, 8  # channels of stage 2 and 3 at width 1/4
    plain = source + 9 + target
    assert norms[:5].tolist() == [plain] * 5
    assert norms[5:8].tolist() == [plain + source, plain - 9, plain + 2 * target]


def test_a_flattened_channel_counts_all_its_features() -> None:
    architecture = Architecture.full(CNN)
    state = {name: torch.zeros_like(tensor) for name, tensor in architecture.build(0).state_dict().items()}
    spread = architecture.description.layer_by_name["hidden1"].source[0].spread
    state["hidden1.weight"][:, spread : 2 * spread] = 0.5
    norms = weight_norms(architecture, state)
    assert norms["conv2"].tolist() == [0, 0.5 * spread * 120, *[0] * 14]
    assert norms["conv1"].tolist() == [0] * 6


def test_magnitude_removes_the_smallest_of_a_group() -> None:
    architecture = Architecture.full(SMALL)
    state = architecture.build(0).state_dict()
    size = architecture.sizes["block9.inner"]
    small = set(range(3, size, 2))  # about half of them
    for name in ("expand_conv", "depthwise_conv"):
        state[f"blocks.9.{name}.weight"][sorted(small)] *= 1e-3
    state["blocks.9.project_conv.weight"][:, sorted(small)] *= 1e-3
    smaller, inherited = magnitude(architecture, state, DeviceBudget(macs=int(architecture.costs.macs * 0.9)))
    gone = set(architecture.indices["block9.inner"]) - set(smaller.indices["block9.inner"])
    assert gone
    assert gone <= small
    kept = list(smaller.indices["block9.inner"])
    assert torch.equal(inherited["blocks.9.expand_conv.weight"], state["blocks.9.expand_conv.weight"][kept])
    assert torch.equal(inherited["blocks.9.project_conv.weight"], state["blocks.9.project_conv.weight"][:, kept])


def test_slimming_removes_the_smallest_scale_of_the_depthwise_norm() -> None:
    architecture = Architecture.full(SMALL)
    state = architecture.build(0).state_dict()
    state["blocks.5.depthwise_norm.weight"][4] = -1e-3
    state["blocks.5.expand_norm.weight"][7] = 0.0  # not what it ranks by
    smaller, inherited = slimming(architecture, state, DeviceBudget(macs=architecture.costs.macs))
    assert set(architecture.indices["block5.inner"]) - set(smaller.indices["block5.inner"]) == {4}
    assert len(inherited["blocks.5.depthwise_norm.weight"]) == smaller.sizes["block5.inner"]


def test_the_slimming_penalty_is_the_l1_norm_of_those_scales() -> None:
    architecture = Architecture.full(SMALL)
    module = architecture.build(0)  # scales start at one
    channels = sum(group.size for group in architecture.description.prunable)
    penalty = slimming_penalty(architecture, 1e-2)(module)
    assert float(penalty.detach()) == pytest.approx(1e-2 * channels)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert module.get_parameter("blocks.0.depthwise_norm.weight").grad is not None
    assert module.get_parameter("blocks.0.expand_norm.weight").grad is None


def test_slimming_needs_batch_norms() -> None:
    architecture = Architecture.full(CNN)
    with pytest.raises(ArchitectureError, match="use mobilenet_v2"):
        slimming(architecture, architecture.build(0).state_dict(), DeviceBudget())


def test_slimming_ranks_the_ends_of_a_residual_stage_by_the_mean_of_their_norms() -> None:
    full, space = Architecture.full(BASE), SearchSpace("uniform", floor=1)
    state = {name: value.clone() for name, value in full.build(0).state_dict().items()}
    norms = [f"blocks.{block}.project_norm.weight" for block in (13, 14, 15)]
    state[norms[0]][5], state[norms[1]][5], state[norms[2]][5] = 0.1, 0.1, 0.1  # smallest in the mean
    state[norms[0]][9] = 0.0  # smallest in one norm alone
    without_one = full.description.costs({**full.sizes, "stage6": full.sizes["stage6"] - 1}).macs
    smaller, _ = slimming(full, state, DeviceBudget(macs=without_one + 1), space)
    assert 5 not in smaller.indices["stage6"]
    assert 9 in smaller.indices["stage6"]


def test_a_pruned_network_can_be_pruned_again() -> None:
    full = Architecture.full(SMALL)
    costs = full.costs
    first, state = magnitude(full, full.build(0).state_dict(), DeviceBudget(macs=int(costs.macs * 0.9)))
    second, inherited = magnitude(first, state, DeviceBudget(macs=int(costs.macs * 0.8)))
    assert first.contains(second)
    second.build(0).load_state_dict(inherited)
