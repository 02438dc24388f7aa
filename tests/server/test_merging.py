"""Merging by kept neighbours gives what looking at every pair before every merge gives, and takes no time."""

import itertools
import math
import random
import time
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import RESOURCES, Costs, DeviceBudget
from common.models.description import BaseNetwork
from server.merging import merge_nearest
from server.methods.slices import smallest_costs
from tests.examples import examples
from tests.server.helpers import slow_in

Groups = dict[DeviceBudget, list[int]]


def plainly(groups: Groups, limit: int, full: Costs, floor: Costs) -> Groups:
    """The definition: of all pairs whose meet admits the floor the first that loses least, again and again."""

    def left(budget: DeviceBudget) -> list[float]:
        more = (budget.share(full, resource) for resource in ("training_memory_bytes", "latency"))
        return [*(budget.bound(resource) for resource in RESOURCES), *more]

    def loss(before: list[float], after: list[float]) -> float:
        return sum(math.log(one / other) for one, other in zip(before, after, strict=True))

    def lost(pair: tuple[DeviceBudget, DeviceBudget]) -> float:
        after = left(pair[0].meet(pair[1]))
        return sum(loss(left(budget), after) * len(groups[budget]) for budget in pair)

    groups = dict(groups)
    while limit < len(groups):
        pairs = [pair for pair in itertools.combinations(groups, 2) if pair[0].meet(pair[1]).admits(floor)]
        if not pairs:
            break
        first, second = min(pairs, key=lost)
        together = groups.pop(first) + groups.pop(second)
        meet = first.meet(second)
        groups[meet] = groups.get(meet, []) + together
    return groups


def grouped(budgets: list[DeviceBudget]) -> Groups:
    groups: Groups = {}
    for position, budget in enumerate(budgets):
        groups.setdefault(budget, []).append(position)
    return groups


FULL = Costs(1, 1, 1)  # matters to latency and training memory alone
FLOOR = Costs(0, 0, 0)
few = st.sampled_from([1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 27])  # many ties
many = st.integers(1, 2**62)


@settings(max_examples=examples(400))
@given(
    st.one_of(
        st.lists(st.builds(DeviceBudget, few, few, few), min_size=1, max_size=14),
        st.lists(st.builds(DeviceBudget, many, many, many), min_size=1, max_size=9),
    ),
    st.integers(1, 6),
)
def test_the_same_groups_in_the_same_order(budgets: list[DeviceBudget], limit: int) -> None:
    groups = grouped(budgets)
    assert list(merge_nearest(groups, limit, FULL, FLOOR).items()) == list(plainly(groups, limit, FULL, FLOOR).items())


BASE = BaseNetwork("cnn", (1, 8, 8), 10)
WHOLE, SMALLEST = Architecture.full(BASE).costs, smallest_costs(BASE)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["conv", "linear", "other"]), st.sampled_from([0.1, 0.3, 0.6, 0.9]), few),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 4),
)
def test_the_same_groups_of_devices_that_are_slow_in_different_work(
    devices: list[tuple[str, float, int]], limit: int
) -> None:
    """Two that would leave no time for the smallest network are never merged, be there more groups than asked for."""
    bounds = [
        replace(slow_in(kind, share, SMALLEST), macs=10**9, params=10**6 * more, peak_memory_bytes=10**9)
        for kind, share, more in devices
    ]
    merged = merge_nearest(grouped(bounds), limit, WHOLE, SMALLEST)
    assert list(merged.items()) == list(plainly(grouped(bounds), limit, WHOLE, SMALLEST).items())
    assert all(budget.admits(SMALLEST) for budget in merged)
    assert sorted(itertools.chain(*merged.values())) == list(range(len(bounds)))


def test_devices_that_are_slow_in_the_same_work_are_nearer_than_those_that_would_have_to_be_fast_in_all() -> None:
    rates = [slow_in("linear", 1.15, WHOLE), slow_in("other", 1.15, WHOLE), slow_in("linear", 1.3, WHOLE)]
    groups = grouped([replace(one, macs=10**9, params=10**6, peak_memory_bytes=10**9) for one in rates])
    assert list(merge_nearest(groups, 2, WHOLE, SMALLEST).values()) == [[1], [0, 2]]


def test_a_thousand_devices_that_are_slow_in_different_work_take_no_time() -> None:
    generator = random.Random(2)
    kinds = ("conv", "linear", "other")
    groups = grouped(
        [
            replace(measured(generator), latency=slow_in(generator.choice(kinds), share / 1100, SMALLEST).latency)
            for share in range(100, 1100)
        ]
    )
    start = time.process_time()
    merged = merge_nearest(groups, 5, WHOLE, replace(SMALLEST, macs=0, params=0, peak_memory_bytes=0))
    assert time.process_time() - start < 30.0
    assert len(merged) >= 5


def test_measured_budgets_of_sixty_devices_merge_as_by_definition() -> None:
    generator = random.Random(0)
    groups = grouped([measured(generator) for _ in range(60)])
    assert list(merge_nearest(groups, 4, FULL, FLOOR).items()) == list(plainly(groups, 4, FULL, FLOOR).items())


def test_a_thousand_measured_budgets_take_no_time() -> None:
    generator = random.Random(1)
    groups = grouped([measured(generator) for _ in range(1000)])
    start = time.process_time()
    merged = merge_nearest(groups, 5, FULL, FLOOR)
    assert time.process_time() - start < 3.0  # by definition about 20 minutes
    assert len(merged) == 5
    assert sorted(itertools.chain(*merged.values())) == list(range(1000))


def test_many_equal_distances_take_no_time_either() -> None:
    groups = grouped([DeviceBudget(2**one, 2**other, 2**62) for one in range(15) for other in range(15)])
    start = time.process_time()
    assert len(merge_nearest(groups, 5, FULL, FLOOR)) == 5
    assert time.process_time() - start < 10.0


def measured(generator: random.Random) -> DeviceBudget:
    scale = math.exp(generator.uniform(0, 6))
    return DeviceBudget(*(int(10_000 * scale * math.exp(generator.gauss(0, 0.3))) for _ in RESOURCES))
