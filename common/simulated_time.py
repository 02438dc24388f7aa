"""How long a round would take on the devices that a simulation plays: computing, and sending over their networks.

A device's seconds are its multiply-accumulates, of which training counts three forward passes (PASSES of
`common.methods.training`), by its sustained speed, plus bytes down and up by the rates of its link. A round takes as
long as its slowest device, for all work at the same time. What the server does meanwhile, waiting for the network's
latency, and devices whose answer did not count are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from common.budget import DeviceBudget
from common.fleet import PROFILES

LINK_SHARE = 0.5
"""Share of a link's nominal rate that arrives as payload (assumed)."""


@dataclass(frozen=True)
class Link:
    """A device's network: nominal bits per second from the server (down) and to it (up), and where they come from."""

    down: float
    up: float
    source: str

    def seconds(self, bytes_down: float, bytes_up: float) -> float:
        """How long so many bytes are on their way."""
        return 8 * (bytes_down / self.down + bytes_up / self.up) / LINK_SHARE


LINKS: Mapping[str, Link] = {
    "microcontroller": Link(1e6, 1e6, "LTE-M modem of category M1, full duplex (3GPP TS 36.306, Release 13)"),
    "large-microcontroller": Link(65e6, 65e6, "802.11n module Murata 1DX of the Arduino Portenta H7: 65 Mbit/s"),
    "single-board": Link(72.2e6, 72.2e6, "802.11n, one stream, 20 MHz, short guard interval (IEEE 802.11n, MCS 7)"),
    "single-board-4": Link(1e9, 1e9, "Gigabit Ethernet of the Raspberry Pi 4 (1000BASE-T, IEEE 802.3ab)"),
    "phone": Link(150e6, 50e6, "LTE of category 4 (3GPP TS 36.306)"),
    "workstation": Link(1e9, 1e9, "Gigabit Ethernet (1000BASE-T, IEEE 802.3ab)"),
}
"""The link of each profile of `common.fleet`."""


@dataclass(frozen=True)
class Pace:
    """How fast a device computes, in multiply-accumulates per second, and its link."""

    macs_per_second: float
    link: Link

    def seconds(self, macs: float, bytes_down: float, bytes_up: float) -> float:
        """How long it takes over so much work, received and sent."""
        return macs / self.macs_per_second + self.link.seconds(bytes_down, bytes_up)


def pace_of(profile: str, budget: DeviceBudget, max_latency_ms: float) -> Pace:
    """The pace of a device: that of its profile, where we know it.

    One of another kind (declared, measured or of a fleet file) is as fast as its budget says: by its rate for plain
    convolutions, or because its bound on MACs is the work of one image in `max_latency_ms`; without either it is as
    fast as a workstation. Its link is that of the fastest profile that is no faster than it, or of the slowest.
    """
    if profile in PROFILES:
        return Pace(PROFILES[profile].macs_per_second, LINKS[profile])
    fastest = PROFILES["workstation"].macs_per_second
    speed = fastest if budget.macs is None else budget.macs / (max_latency_ms / 1000)
    if budget.latency is not None and budget.latency.seconds_of("conv", "mac"):
        speed = 1 / budget.latency.seconds_of("conv", "mac")
    slower = sorted((one.macs_per_second, name) for name, one in PROFILES.items())
    name = [name for rate, name in slower if rate <= speed or name == slower[0][1]][-1]
    return Pace(speed, LINKS[name])
