"""Removal of channels, one at a time, least valuable first."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import BOUNDED, RESOURCES, DeviceBudget, LocalTraining
from common.fleet import PROFILES
from common.models.description import BaseNetwork
from common.rates import LatencyBound
from common.search_space import SearchSpace
from common.seeds import torch_generator
from dac.shrink import Ranking, Removal, shrink_step
from tests.examples import examples

BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
FULL = Architecture.full(BASE)


def ranking(architecture: Architecture, seed: int, threshold: float = 0.1, space: SearchSpace | None = None) -> Ranking:
    """Random importances and gates for the channels and blocks an architecture keeps."""
    importance, gate = {}, {}
    space = space or SearchSpace()
    for block in space.blocks(architecture.description):
        importance[block.name], gate[block.name] = torch.rand(2, 1, generator=torch_generator(seed, block.name))
    for group in space.groups(architecture.description):
        generator = torch_generator(seed, group.name)
        kept = list(architecture.indices[group.name])
        importance[group.name] = torch.rand(group.size, generator=generator)[kept]
        gate[group.name] = torch.rand(group.size, generator=generator)[kept]
    return Ranking(importance, gate, threshold)


def shrink_to(
    target: DeviceBudget, seed: int, share: float = 0.25, start: Architecture = FULL, space: SearchSpace | None = None
) -> list[Architecture]:
    """Steps until the target is met; every step must remove something."""
    path = [start]
    removed: tuple[Removal, ...] = ()
    while not target.admits(path[-1].costs):
        step = shrink_step(path[-1], ranking(path[-1], seed, space=space), target, share, space, removed)
        path.append(step.architecture)
        removed = step.removed
        assert path[-1] != path[-2]
    return path


fractions = st.one_of(st.none(), st.floats(0.001, 0.999))


@settings(max_examples=examples(12), deadline=None)
@given(st.tuples(fractions, fractions, fractions), st.integers(0, 100))
def test_every_feasible_budget_is_met_strictly_and_the_path_is_nested(
    shares: tuple[float | None, float | None, float | None], seed: int
) -> None:
    floor, full = FULL.description.costs(FULL.description.floor_sizes), FULL.costs
    bounds = [
        None if share is None else floor.get(r) + 1 + int(share * (full.get(r) - floor.get(r)))
        for r, share in zip(RESOURCES, shares, strict=True)
    ]
    target = DeviceBudget(*bounds)
    path = shrink_to(target, seed)
    assert target.admits(path[-1].costs)
    assert all(larger.contains(smaller) for larger, smaller in itertools.pairwise(path[:-1]))
    assert path[0].contains(path[-1])
    assert all(path[-1].sizes[g.name] >= g.floor for g in FULL.description.prunable)


@settings(max_examples=examples(6), deadline=None)
@given(st.sampled_from(["training", "latency", "both"]), st.floats(0.05, 0.95), st.integers(0, 100))
def test_training_memory_and_latency_bind_as_macs_do(which: str, share: float, seed: int) -> None:
    space, training = SearchSpace("all"), LocalTraining(8)
    floor, full = FULL.description.costs(space.floor_sizes(FULL.description)), FULL.costs
    rates = PROFILES["phone"].rates
    least, most = floor.training_memory_bytes(training), full.training_memory_bytes(training)
    shortest, longest = rates.seconds_for(floor.work()), rates.seconds_for(full.work())
    milliseconds = 1001 * (shortest + share * (longest - shortest))
    target = DeviceBudget(
        training_memory_bytes=least + 1 + int(share * (most - least)) if which != "latency" else None,
        latency=LatencyBound.by(rates, milliseconds) if which != "training" else None,
        training=training,
    )
    path = shrink_to(target, seed, space=space)
    assert target.admits(path[-1].costs)
    assert path[-1].costs.training_memory_bytes(training) < (target.training_memory_bytes or 10**18)
    if target.latency is not None:
        assert 1000 * rates.seconds_for(path[-1].costs.work()) < target.latency.milliseconds
    assert max(target.amount(path[-1].costs, r) / target.bound(r) for r in BOUNDED[3:] if target.violated(full)) > 0.97


def could_come_back(start: Architecture, found: Architecture, target: DeviceBudget, space: SearchSpace) -> list[str]:
    """The groups of which the target would admit one step more."""
    description, sizes = found.description, {**found.sizes}
    more = []
    for group in space.groups(description):
        whole = len(start.indices[group.name])
        if 0 < sizes[group.name] < whole:
            larger = min(whole, (sizes[group.name] // space.multiple + 1) * space.multiple)
            if target.admits(description.costs({**sizes, group.name: larger})):
                more.append(group.name)
    return more


@settings(max_examples=examples(12), deadline=None)
@given(st.sampled_from(RESOURCES), st.floats(0.05, 0.95), st.integers(0, 100), st.sampled_from(["inner", "all"]))
def test_no_channel_could_have_stayed_whichever_step_removed_it(
    resource: str, share: float, seed: int, kind: str
) -> None:
    space = SearchSpace(kind)
    floor, full = FULL.description.costs(space.floor_sizes(FULL.description)), FULL.costs
    bound = floor.get(resource) + 1 + int(share * (full.get(resource) - floor.get(resource)))
    target = DeviceBudget(**{resource: bound})
    found = shrink_to(target, seed, space=space)[-1]
    assert target.admits(found.costs)
    assert could_come_back(FULL, found, target, space) == []


@pytest.mark.parametrize("kind", ["inner", "all"])
@pytest.mark.parametrize("multiple", [4, 8])
def test_reduced_groups_end_on_the_multiple_and_the_budget_is_met_within_one(kind: str, multiple: int) -> None:
    space = SearchSpace(kind, floor=5, multiple=multiple)
    for seed in range(3):
        target = DeviceBudget(macs=40_000_000, params=900_000)
        found = shrink_to(target, seed, space=space)[-1]
        assert target.admits(found.costs)
        for group in space.groups(FULL.description):
            size = found.sizes[group.name]
            assert size in (0, group.size) or (size % multiple == 0 and size >= space.least(group))
        assert could_come_back(FULL, found, target, space) == []


def test_a_block_that_costs_more_than_it_is_worth_goes_whole_with_what_is_inside() -> None:
    space = SearchSpace("all")
    chosen = ranking(FULL, 0, space=space)
    for values in (*chosen.importance.values(), *chosen.gate.values()):
        values.fill_(1.0)
    chosen.importance["blocks.8"].fill_(1e-9)
    step = shrink_step(FULL, chosen, DeviceBudget(macs=FULL.costs.macs - 1), 0.5, space)
    assert step.architecture.removed == ("blocks.8",)
    assert step.architecture.indices["block8.inner"] == ()
    # 64 -> 384 -> 64 at 8x8, with a depthwise convolution
    assert FULL.costs.macs - step.architecture.costs.macs == 384 * (64 + 9 + 64) * 64
    assert FULL.costs.params - step.architecture.costs.params == 384 * (64 + 9 + 64 + 4) + 2 * 64


def test_a_block_comes_back_with_what_was_inside_it() -> None:
    space = SearchSpace("all")
    chosen = ranking(FULL, 0, space=space)
    for values in (*chosen.importance.values(), *chosen.gate.values()):
        values.fill_(1.0)
    chosen.importance["blocks.8"].fill_(1e-9)
    first = shrink_step(FULL, chosen, DeviceBudget(macs=FULL.costs.macs - 1), 0.5, space)
    loose, again = DeviceBudget(macs=FULL.costs.macs + 1), ranking(first.architecture, 0, space=space)
    back = shrink_step(first.architecture, again, loose, 0.5, space, first.removed)
    assert (back.architecture, back.removed) == (FULL, ())


def test_a_memory_budget_only_touches_the_blocks_that_hold_too_much() -> None:
    target = DeviceBudget(peak_memory_bytes=700_000)
    last = shrink_to(target, 0)[-1]
    touched = {g.name for g in FULL.description.prunable if last.sizes[g.name] < g.size}
    assert touched == {"block1.inner", "block2.inner", "block3.inner"}


def test_closed_gates_go_first_smallest_gate_first() -> None:
    chosen = ranking(FULL, 0)
    for group in FULL.description.prunable:
        chosen.gate[group.name].fill_(1.0)
    chosen.gate["block9.inner"][5], chosen.gate["block4.inner"][7] = 0.05, 0.02
    chosen.importance["block9.inner"][5] = chosen.importance["block4.inner"][7] = 1e9
    one = FULL.costs.params - 1
    smaller = shrink_step(FULL, chosen, DeviceBudget(params=one), 0.5).architecture
    assert set(FULL.indices["block4.inner"]) - set(smaller.indices["block4.inner"]) == {7}
    assert smaller.sizes["block9.inner"] == FULL.sizes["block9.inner"]


def test_a_group_whose_closed_gates_are_worth_more_than_open_ones_still_ends_on_the_multiple() -> None:
    """What goes together is fixed, and in which order: the closed ones first, with two open ones up to the multiple."""
    full = Architecture.full(BaseNetwork("cnn", (3, 32, 32), 10, 1.25))
    space = SearchSpace("inner", floor=1, multiple=8)
    [group] = [one for one in full.description.prunable if one.size == 20]
    chosen = ranking(full, 0, space=space)
    for values in chosen.gate.values():
        values.fill_(1.0)
    for values in chosen.importance.values():
        values.fill_(1e9)
    chosen.gate[group.name][18:] = 0.09
    chosen.importance[group.name].fill_(1e-12)
    chosen.importance[group.name][16:] = 1e-15
    smaller = shrink_step(full, chosen, DeviceBudget(params=full.costs.params - 1), 0.01, space).architecture
    assert smaller.sizes[group.name] == 16
    assert not {18, 19} & set(smaller.indices[group.name])


def test_with_open_gates_the_least_important_per_cost_goes_first() -> None:
    """block0 channels cost 57 parameters, block16 ones 493: nine times the importance is still the cheaper loss."""
    chosen = ranking(FULL, 0)
    for group in FULL.description.prunable:
        chosen.gate[group.name].fill_(1.0)
        chosen.importance[group.name].fill_(1e6)
    chosen.importance["block0.inner"][3], chosen.importance["block16.inner"][11] = 1.0, 8.0
    costs = FULL.costs
    smaller = shrink_step(FULL, chosen, DeviceBudget(params=costs.params - 10), 0.5).architecture
    assert 11 not in smaller.indices["block16.inner"]
    assert smaller.sizes["block0.inner"] == 32


def test_a_step_takes_about_its_share_and_at_most_half_of_a_group() -> None:
    target = DeviceBudget(macs=20_000_000)
    step = shrink_step(FULL, ranking(FULL, 1), target, 0.25).architecture
    full = FULL.costs.macs
    assert 0.74 * full < step.costs.macs < 0.75 * full
    assert all(step.sizes[g.name] * 2 >= g.size for g in FULL.description.prunable)
