"""Removal of channels, one at a time, least valuable first."""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import RESOURCES, DeviceBudget
from common.models.description import BaseNetwork
from common.seeds import torch_generator
from dac.shrink import Ranking, shrink_step

BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
FULL = Architecture.full(BASE)


def ranking(architecture: Architecture, seed: int, threshold: float = 0.1) -> Ranking:
    """Random importances and gates for the channels an architecture keeps."""
    importance, gate = {}, {}
    for group in architecture.description.prunable:
        generator = torch_generator(seed, group.name)
        kept = list(architecture.indices[group.name])
        importance[group.name] = torch.rand(group.size, generator=generator)[kept]
        gate[group.name] = torch.rand(group.size, generator=generator)[kept]
    return Ranking(importance, gate, threshold)


def shrink_to(target: DeviceBudget, seed: int, share: float = 0.25, start: Architecture = FULL) -> list[Architecture]:
    """Steps until the target is met; every step must remove something."""
    path = [start]
    while not target.admits(path[-1].costs):
        path.append(shrink_step(path[-1], ranking(path[-1], seed), target, share))
        assert path[-1] != path[-2]
    return path


fractions = st.one_of(st.none(), st.floats(0.001, 0.999))


@settings(max_examples=25, deadline=None)
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
    assert all(larger.contains(smaller) for larger, smaller in itertools.pairwise(path))
    assert all(path[-1].sizes[g.name] >= g.floor for g in FULL.description.prunable)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(RESOURCES), st.floats(0.05, 0.95), st.integers(0, 100))
def test_no_channel_of_the_last_step_could_have_stayed(resource: str, share: float, seed: int) -> None:
    floor, full = FULL.description.costs(FULL.description.floor_sizes), FULL.costs
    bound = floor.get(resource) + 1 + int(share * (full.get(resource) - floor.get(resource)))
    target = DeviceBudget(**{resource: bound})
    *_, before, last = shrink_to(target, seed)
    for group in FULL.description.prunable:
        for channel in set(before.indices[group.name]) - set(last.indices[group.name]):
            more = Architecture.with_kept(
                BASE, {**last.indices, group.name: sorted({*last.indices[group.name], channel})}
            )
            assert not target.admits(more.costs)


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
    smaller = shrink_step(FULL, chosen, DeviceBudget(params=one), 0.5)
    assert set(FULL.indices["block4.inner"]) - set(smaller.indices["block4.inner"]) == {7}
    assert smaller.sizes["block9.inner"] == FULL.sizes["block9.inner"]


def test_with_open_gates_the_least_important_per_cost_goes_first() -> None:
    """block0 channels cost 57 parameters, block16 ones 493: nine times the importance is still the cheaper loss."""
    chosen = ranking(FULL, 0)
    for group in FULL.description.prunable:
        chosen.gate[group.name].fill_(1.0)
        chosen.importance[group.name].fill_(1e6)
    chosen.importance["block0.inner"][3], chosen.importance["block16.inner"][11] = 1.0, 8.0
    costs = FULL.costs
    smaller = shrink_step(FULL, chosen, DeviceBudget(params=costs.params - 10), 0.5)
    assert 11 not in smaller.indices["block16.inner"]
    assert smaller.sizes["block0.inner"] == 32


def test_a_step_takes_about_its_share_and_at_most_half_of_a_group() -> None:
    target = DeviceBudget(macs=20_000_000)
    step = shrink_step(FULL, ranking(FULL, 1), target, 0.25)
    full = FULL.costs.macs
    assert 0.74 * full < step.costs.macs < 0.75 * full
    assert all(step.sizes[g.name] * 2 >= g.size for g in FULL.description.prunable)
