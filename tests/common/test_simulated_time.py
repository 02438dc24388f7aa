"""Simulated time: what a device computes and sends, by its profile or its budget."""

import pytest

from common.budget import DeviceBudget
from common.fleet import PROFILES
from common.simulated_time import LINKS, Link, Pace, pace_of


def test_every_profile_has_a_link_with_its_source() -> None:
    assert set(LINKS) == set(PROFILES)
    assert all(link.source and link.down > 0 and link.up > 0 for link in LINKS.values())


def test_seconds_by_hand() -> None:
    """30 M MACs at 10 M a second, 1,000 bytes down at 8 kbit/s and 500 back at 4 kbit/s, of which half is payload."""
    pace = Pace(10e6, Link(8000, 4000, "test"))
    assert pace.seconds(30e6, 1000, 500) == pytest.approx(3 + 2 * (1 + 1))
    assert pace.seconds(0, 0, 0) == 0


def test_a_known_profile_has_its_own_speed_whatever_bounds_a_run_adds() -> None:
    pace = pace_of("phone", DeviceBudget(macs=5), 20.0)
    assert pace == Pace(PROFILES["phone"].macs_per_second, LINKS["phone"])


@pytest.mark.parametrize(
    ("macs", "link"),
    [
        (1, "microcontroller"),
        (3_000_000, "microcontroller"),
        (5_600_000, "large-microcontroller"),
        (None, "workstation"),
    ],
)
def test_another_device_is_as_fast_as_its_budget_says(macs: int | None, link: str) -> None:
    """Of 5.6 M MACs in 20 ms: 280 M a second, just more than the 277 M of a large microcontroller."""
    pace = pace_of("sensor", DeviceBudget(macs=macs), 20.0)
    assert pace.link == LINKS[link]
    assert pace.macs_per_second == (PROFILES["workstation"].macs_per_second if macs is None else macs * 50)


def test_a_measured_device_is_as_fast_as_its_rate_for_plain_convolutions() -> None:
    for profile in PROFILES.values():
        pace = pace_of("measured", profile.budget(3.0), 20.0)
        assert pace.macs_per_second == pytest.approx(profile.macs_per_second)
