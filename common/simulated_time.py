"""How long a round would take on the devices that a simulation plays: computing, and sending over their networks.

A device's seconds are its multiply-accumulates, of which training counts three forward passes (PASSES of
`common.methods.training`), by its sustained speed in layers of their kinds, plus bytes down and up by the rates of its
link. A round takes as long as its slowest device, for all work at the same time. What the server does meanwhile,
waiting for the network's latency, and devices whose answer did not count are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from common.budget import Costs, DeviceBudget
from common.fleet import PROFILES
from common.rates import KINDS, Rates

SLOWEST = 1000.0
"""No device is charged for computing more times slower than the slowest profile: its own rates cannot be verified."""

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
    """How fast a device computes, and its link; `declared` rates are the device's word, believed up to SLOWEST."""

    rates: Rates
    link: Link
    declared: bool = False

    def seconds(self, costs: Costs, macs: float, bytes_down: float, bytes_up: float) -> float:
        """How long `macs` multiply-accumulates of a network that costs `costs` take, and to receive and send so much.

        A network takes its time by what kinds of layers it has. Where its costs were not counted from a description,
        all its multiply-accumulates are those of plain convolutions.
        """
        computing = _computing(self.rates, costs, macs)
        if self.declared:
            slowest = max((profile.rates for profile in PROFILES.values()), key=_seconds_per_mac)
            computing = min(computing, SLOWEST * _computing(slowest, costs, macs))
        return computing + self.link.seconds(bytes_down, bytes_up)


def pace_of(profile: str, budget: DeviceBudget, max_latency_ms: float) -> Pace:
    """The pace of a device: that of its profile, where we know it.

    One of another kind (declared, measured or of a fleet file) is as fast as its bound on latency says, which is made
    of its rates; without one, so fast that it does the multiply-accumulates of its budget in `max_latency_ms`; without
    either, as fast as a workstation. Its link is that of the fastest profile that is no faster than it in plain
    convolutions, or of the slowest.
    """
    if profile in PROFILES:
        return Pace(PROFILES[profile].rates, LINKS[profile])
    if budget.latency is not None:
        seconds = budget.latency.milliseconds / 1000
        rates = Rates(tuple(share * seconds for share in budget.latency.shares))
    elif budget.macs is not None:
        speed = budget.macs / (max_latency_ms / 1000)
        rates = Rates.per_mac(dict.fromkeys(KINDS, speed))
    else:
        rates = PROFILES["workstation"].rates
    slowest_first = sorted(PROFILES, key=lambda name: -_seconds_per_mac(PROFILES[name].rates))
    no_faster = [name for name in slowest_first if _seconds_per_mac(PROFILES[name].rates) >= _seconds_per_mac(rates)]
    return Pace(rates, LINKS[(no_faster or slowest_first[:1])[-1]], declared=budget.latency is not None)


def _computing(rates: Rates, costs: Costs, macs: float) -> float:
    if costs.network is None:
        return macs * rates.of("conv", "mac")
    return macs / costs.macs * rates.seconds_for(costs.work())


def _seconds_per_mac(rates: Rates) -> float:
    return rates.of("conv", "mac")
