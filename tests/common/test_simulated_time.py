"""Simulated time: what a device computes and sends, by its profile or its budget."""

import pytest

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.fleet import PROFILES
from common.models.description import BaseNetwork
from common.rates import COUNTED, KINDS, LatencyBound, Rates
from common.simulated_time import LINKS, Link, Pace, pace_of

DEPTHWISE = ("depthwise", "mac")


def test_every_profile_has_a_link_with_its_source() -> None:
    assert set(LINKS) == set(PROFILES)
    assert all(link.source and link.down > 0 and link.up > 0 for link in LINKS.values())


def rates(macs_per_second: float, depthwise: float) -> Rates:
    return Rates.per_mac({**dict.fromkeys(KINDS, macs_per_second), "depthwise": depthwise})


def test_seconds_by_hand() -> None:
    """30 M MACs at 10 M a second, 1,000 bytes down at 8 kbit/s and 500 back at 4 kbit/s, of which half is payload."""
    pace = Pace(rates(10e6, 1e6), Link(8000, 4000, "test"))
    written_down = Costs(macs=100, params=1, peak_memory_bytes=4)
    assert pace.seconds(written_down, 30e6, 1000, 500) == pytest.approx(3 + 2 * (1 + 1))
    assert pace.seconds(written_down, 0, 0, 0) == 0


def test_a_network_takes_the_time_of_its_kinds_of_layers() -> None:
    costs = Architecture.full(BaseNetwork("mobilenet_v2", (3, 32, 32), 10)).costs
    depthwise = sum(
        units for (kind, figure), units in zip(COUNTED, costs.work(), strict=True) if (kind, figure) == DEPTHWISE
    )
    assert 0 < depthwise < costs.macs
    pace = Pace(rates(10e6, 1e6), Link(8000, 4000, "test"))
    one_image = (costs.macs - depthwise) / 10e6 + depthwise / 1e6
    assert pace.seconds(costs, 7 * costs.macs, 0, 0) == pytest.approx(7 * one_image)


def test_a_known_profile_has_its_own_speed_whatever_bounds_a_run_adds() -> None:
    pace = pace_of("phone", DeviceBudget(macs=5), 20.0)
    assert pace == Pace(PROFILES["phone"].rates, LINKS["phone"])


@pytest.mark.parametrize(
    ("macs", "link"),
    [(1, "microcontroller"), (3_000_000, "microcontroller"), (5_600_000, "large-microcontroller")],
)
def test_another_device_is_as_fast_as_its_budget_says(macs: int, link: str) -> None:
    """Of 5.6 M MACs in 20 ms: 280 M a second, just more than the 277 M of a large microcontroller."""
    pace = pace_of("sensor", DeviceBudget(macs=macs), 20.0)
    assert pace.link == LINKS[link]
    assert 1 / pace.rates.of("conv", "mac") == pytest.approx(macs * 50)


def test_a_bound_on_latency_says_how_fast_a_device_is_and_nothing_else_is_known() -> None:
    own = rates(3e6, 1e6)
    pace = pace_of("sensor", DeviceBudget(macs=7, latency=LatencyBound.by(own, 40.0)), 20.0)
    assert pace.rates.seconds == pytest.approx(own.seconds)
    assert pace.link == LINKS["microcontroller"]
    costs = Architecture.full(BaseNetwork("mobilenet_v2", (3, 32, 32), 10)).costs
    assert pace.seconds(costs, 7 * costs.macs, 0, 0) == pytest.approx(7 * own.seconds_for(costs.work()))
    assert pace_of("sensor", DeviceBudget(), 20.0) == Pace(PROFILES["workstation"].rates, LINKS["workstation"])


@pytest.mark.parametrize("figure", ["call", "mac", "value"])
def test_a_device_that_says_it_needs_ages_is_charged_a_thousand_times_the_slowest_profile(figure: str) -> None:
    costs = Architecture.full(BaseNetwork("mobilenet_v2", (3, 32, 32), 10)).costs
    shares = tuple(1e-12 if counted == ("conv", figure) else 0.0 for counted in COUNTED)
    pace = pace_of("sensor", DeviceBudget(latency=LatencyBound(1e18, shares)), 20.0)
    slowest = PROFILES["microcontroller"].rates.seconds_for(costs.work())
    assert pace.seconds(costs, costs.macs, 0, 0) == pytest.approx(1000 * slowest)
