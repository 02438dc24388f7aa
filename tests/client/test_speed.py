"""Measured rates: fitted as they should be, on a clock that the test turns, and of a sane size on the real one."""

import itertools

import numpy as np
import pytest

from client.speed import IN_A_ROW, fitted, layer_rates, measured_rates, random_part, seconds_of, slowdown
from common.architecture import Architecture
from common.models.description import BaseNetwork
from common.rates import COUNTED, KINDS, Rates
from common.search_space import SearchSpace

BASE, RESNET = BaseNetwork("cnn", (1, 8, 8), 10), BaseNetwork("resnet8", (3, 8, 8), 10)
WHOLE = SearchSpace("all", floor=1)


def test_times_that_follow_a_rule_give_the_rule_back() -> None:
    generator = np.random.default_rng(0)
    work = generator.uniform(1, 1000, (12, 3)) * np.array([1, 1e6, 1e4])
    rule = np.array([2e-5, 3e-11, 4e-10])
    assert fitted(work, work @ rule) == pytest.approx(list(rule), rel=1e-6)


def test_no_rate_is_negative_whatever_the_times_are() -> None:
    generator = np.random.default_rng(1)
    work, seconds = generator.uniform(1, 1000, (12, 3)), generator.uniform(1e-5, 1e-3, 12)
    assert min(fitted(work, seconds)) >= 0


def test_the_slowdown_is_the_factor_between_what_is_predicted_and_what_is_measured() -> None:
    rates = Rates(tuple(1e-6 for _ in COUNTED))
    parts = [random_part(BASE, WHOLE, number) for number in range(4)]
    seconds = [2.5 * rates.seconds_for(part.costs.work()) for part in parts]
    assert slowdown(rates, parts, seconds) == pytest.approx(2.5)


def test_the_least_of_several_runs_counts_and_the_first_run_does_not() -> None:
    # the clock is read before and after every forward pass, which alone takes time
    durations = itertools.chain([1e-9] * IN_A_ROW, [3.0] * (IN_A_ROW - 1), [2.0], itertools.repeat(5.0))
    now, inside = 0.0, False

    def clock() -> float:
        nonlocal now, inside
        if started[0] and inside:
            now += next(durations)
        inside = started[0] and not inside
        started[0] = True
        return now

    started = [False]
    assert seconds_of([random_part(BASE, WHOLE, 0)], runs=2, clock=clock) == pytest.approx([2.0])


def test_parts_differ_and_are_the_same_again() -> None:
    parts = [random_part(RESNET, WHOLE, number) for number in range(6)]
    assert len(set(parts)) == 6
    assert parts[3] == random_part(RESNET, WHOLE, 3)


@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize("kind", ["inner", "all"])
def test_parts_are_such_as_the_search_may_find(kind: str, multiple: int) -> None:
    space, whole = SearchSpace(kind, multiple=multiple), Architecture.full(RESNET).description
    may_narrow = {group.name for group in space.groups(whole)}
    for number in range(6):
        part = random_part(RESNET, space, number)
        kept_whole = set()
        for group in whole.groups:
            size = part.sizes[group.name]
            if size not in (0, group.size):
                assert group.name in may_narrow
                assert size >= space.least(group)
                assert size % multiple == 0
            kept_whole |= {group.name} if size == group.size else set()
        assert may_narrow - kept_whole
        assert kind == "all" or not part.removed


def test_this_machine_takes_some_time_for_every_kind() -> None:
    rates = measured_rates(BASE, WHOLE)
    for kind in KINDS:
        assert (
            1e-8
            < sum(rates.of(kind, figure) * units for figure, units in (("call", 1), ("mac", 1e5), ("value", 1e3)))
            < 10
        )
    factors = [mine / alone for mine, alone in zip(rates.seconds, layer_rates_again().seconds, strict=True) if alone]
    assert factors == pytest.approx([factors[0]] * len(factors))


def layer_rates_again() -> Rates:
    """The rates of single layers, which were measured once in this process."""
    from client.speed import fair_clock

    return layer_rates(fair_clock())
