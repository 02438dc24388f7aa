"""Merging by kept neighbours gives what looking at every pair before every merge gives, and takes no time."""

import itertools
import math
import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from common.budget import RESOURCES, Costs, DeviceBudget
from server.merging import merge_nearest
from tests.examples import examples

Groups = dict[DeviceBudget, list[int]]


def plainly(groups: Groups, limit: int) -> Groups:
    """The definition: of all pairs the first that loses least, again and again."""

    def loss(before: DeviceBudget, after: DeviceBudget) -> float:
        return sum(math.log(before.bound(resource) / after.bound(resource)) for resource in RESOURCES)

    groups = dict(groups)
    while limit < len(groups):
        first, second = min(
            itertools.combinations(groups, 2),
            key=lambda pair: sum(loss(budget, pair[0].meet(pair[1])) * len(groups[budget]) for budget in pair),
        )
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
    assert list(merge_nearest(groups, limit, FULL).items()) == list(plainly(groups, limit).items())


def test_measured_budgets_of_sixty_devices_merge_as_by_definition() -> None:
    generator = random.Random(0)
    groups = grouped([measured(generator) for _ in range(60)])
    assert list(merge_nearest(groups, 4, FULL).items()) == list(plainly(groups, 4).items())


def test_a_thousand_measured_budgets_take_no_time() -> None:
    generator = random.Random(1)
    groups = grouped([measured(generator) for _ in range(1000)])
    start = time.process_time()
    merged = merge_nearest(groups, 5, FULL)
    assert time.process_time() - start < 3.0  # by definition about 20 minutes
    assert len(merged) == 5
    assert sorted(itertools.chain(*merged.values())) == list(range(1000))


def test_many_equal_distances_take_no_time_either() -> None:
    groups = grouped([DeviceBudget(2**one, 2**other, 2**62) for one in range(15) for other in range(15)])
    start = time.process_time()
    assert len(merge_nearest(groups, 5, FULL)) == 5
    assert time.process_time() - start < 10.0


def measured(generator: random.Random) -> DeviceBudget:
    scale = math.exp(generator.uniform(0, 6))
    return DeviceBudget(*(int(10_000 * scale * math.exp(generator.gauss(0, 0.3))) for _ in RESOURCES))
