"""Virtual devices: named hardware profiles, and the fleet a simulation deals from them or reads from a file."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.bounds import BOUND_KEYS, parse_bounds, parse_milliseconds
from common.budget import FLOAT32_BYTES, USUAL_TRAINING, DeviceBudget, LocalTraining
from common.device_names import DEVICE_NAME
from common.errors import BudgetError, ConfigurationError
from common.groups import FleetSettings
from common.rates import LatencyBound, Rates
from common.settings import Scalar
from common.toml_file import read_toml

MAX_DEVICES = 100_000
"""Far more than a run has been tried with; a file that asks for more holds a slip of the pen."""

KIB, MIB, GIB = 2**10, 2**20, 2**30

MODEL_SHARE = 0.75
"""Share of memory and storage a model may take; the rest is for the runtime, the program and the input."""

SUSTAINED_SHARE = 0.2
"""Share of the peak arithmetic rate that plain convolutions are assumed to reach on a CPU with caches."""

DEPTHWISE_SHARE = 0.5
"""Speed of depthwise and grouped convolutions against plain ones, as measured on one x86 server (docs/latency.md)."""


@dataclass(frozen=True)
class DeviceProfile:
    """Hardware as far as it bounds a model, and where the figures come from.

    `rates` are sustained, `memory_bytes` holds activations, `storage_bytes` holds parameters, and one parameter or
    activation takes `bytes_per_value` on the device (1 where it runs in int8, 4 in float32). A device that trains in
    its memory has `trains`.
    """

    rates: Rates
    memory_bytes: int
    storage_bytes: int
    bytes_per_value: int
    source: str
    trains: bool = False

    def budget(self, max_latency_ms: float, training: LocalTraining = USUAL_TRAINING) -> DeviceBudget:
        """What fits when one image may take `max_latency_ms`; BudgetError where that is no time at all.

        FedDAC counts activations as float32, so a device that holds them in int8 affords four times its bytes.
        """
        memory = int(MODEL_SHARE * self.memory_bytes)
        return DeviceBudget(
            params=int(MODEL_SHARE * self.storage_bytes) // self.bytes_per_value,
            peak_memory_bytes=memory // self.bytes_per_value * FLOAT32_BYTES,
            training_memory_bytes=memory if self.trains else None,
            latency=LatencyBound.by(self.rates, max_latency_ms),
            training=training,
        )


def _cpu(macs_per_second: float) -> Rates:
    """Rates of a CPU of which only the speed of plain convolutions is known."""
    slow = DEPTHWISE_SHARE * macs_per_second
    return Rates.per_mac(
        {
            "conv": macs_per_second,
            "pointwise": macs_per_second,
            "linear": macs_per_second,
            "depthwise": slow,
            "grouped": slow,
            "other": macs_per_second,
        }
    )


# Lai et al. 2018 count a multiply and an add as two operations.
_CORTEX_M7_216_MHZ = 24.7e6 / 2 / 99.1e-3

PROFILES: Mapping[str, DeviceProfile] = {
    "microcontroller": DeviceProfile(
        rates=_cpu(_CORTEX_M7_216_MHZ),
        memory_bytes=320 * KIB,
        storage_bytes=1 * MIB,
        bytes_per_value=1,
        source="STM32F746, Cortex-M7 at 216 MHz, 320 KB SRAM, 1 MB flash; CIFAR-10 network of 24.7 MOp in 99.1 ms "
        "with CMSIS-NN in int8 (Lai et al. 2018, arXiv:1801.06601), nearly all of it plain convolutions; depthwise at "
        "half of that (assumed)",
    ),
    "large-microcontroller": DeviceProfile(
        rates=_cpu(_CORTEX_M7_216_MHZ * 480 / 216),
        memory_bytes=512 * KIB,
        storage_bytes=2 * MIB,
        bytes_per_value=1,
        source="STM32H743, Cortex-M7 at 480 MHz, 512 KB of its SRAM for activations, 2 MB flash; speeds of the "
        "STM32F746 scaled by the clock, int8",
    ),
    "single-board": DeviceProfile(
        rates=_cpu(1e9 * SUSTAINED_SHARE),
        memory_bytes=512 * MIB,
        storage_bytes=512 * MIB,
        bytes_per_value=4,
        source="Raspberry Pi Zero W, ARM1176 at 1 GHz, 512 MB; peak of one float32 multiply-accumulate per cycle, "
        "20 % sustained, depthwise half of that (assumed); parameters are held in memory",
    ),
    "single-board-4": DeviceProfile(
        rates=_cpu(4 * 4 * 1.5e9 * SUSTAINED_SHARE),
        memory_bytes=4 * GIB,
        storage_bytes=4 * GIB,
        bytes_per_value=4,
        source="Raspberry Pi 4, four Cortex-A72 at 1.5 GHz, 128-bit NEON (4 float32 multiply-accumulates per cycle "
        "and core), 20 % sustained, depthwise half of that (assumed), 4 GB; parameters are held in memory",
    ),
    "phone": DeviceProfile(
        rates=_cpu(4 * 8 * 2.4e9 * SUSTAINED_SHARE),
        memory_bytes=256 * MIB,
        storage_bytes=256 * MIB,
        bytes_per_value=4,
        source="four Cortex-A78 at 2.4 GHz, two 128-bit FMA units (8 float32 multiply-accumulates per cycle and "
        "core), 20 % sustained, depthwise half of that (assumed), 256 MB for one app; parameters are held in memory",
    ),
    "workstation": DeviceProfile(
        rates=_cpu(16 * 16 * 3.5e9 * SUSTAINED_SHARE),
        memory_bytes=16 * GIB,
        storage_bytes=16 * GIB,
        bytes_per_value=4,
        source="16 cores at 3.5 GHz, two 256-bit FMA units (16 float32 multiply-accumulates per cycle and core), "
        "20 % sustained, depthwise half of that (assumed), 16 GB; parameters are held in memory",
    ),
}


BUDGET_KEYS = (*BOUND_KEYS, "latency-ms", "profile")
"""What a table of a budget or device may hold."""


@dataclass(frozen=True)
class VirtualDevice:
    """One simulated device; `profile` is the name of its kind, empty where a fleet file gives it none."""

    name: str
    profile: str
    budget: DeviceBudget


def virtual_fleet(settings: FleetSettings, training: LocalTraining = USUAL_TRAINING) -> list[VirtualDevice]:
    """The devices of a simulation; the position in the list is the partition id.

    `settings.fleet` is a comma-separated list of profiles, dealt to `settings.devices` devices in turn, or the path
    of a TOML file with one `[[device]]` table per device (see `read_fleet`). The bounds `max_macs`, `max_params`,
    `max_memory` and `max_training_memory` tighten every device's budget; `training` is how devices train.

    Raises ConfigurationError for an unknown profile, an unreadable file, or a file of another number of devices
    than `settings.devices`; BudgetError for a bound that cannot be read or is not positive.
    """
    if is_fleet_file(settings.fleet):
        devices = read_fleet(Path(settings.fleet), training)
        if len(devices) != settings.devices:
            raise ConfigurationError(
                f"{settings.fleet} describes {len(devices)} devices but devices is {settings.devices}; "
                f"use --devices {len(devices)}"
            )
    else:
        devices = _deal(settings, training)
    cap = parse_bounds({key: value for key, value in settings.to_mapping().items() if value != ""}, "max-", training)
    return [VirtualDevice(device.name, device.profile, device.budget.meet(cap)) for device in devices]


def is_fleet_file(fleet: str) -> bool:
    """Whether the `fleet` setting names a file rather than profiles."""
    return fleet.endswith(".toml")


def read_fleet(path: Path, training: LocalTraining = USUAL_TRAINING) -> list[VirtualDevice]:
    """The devices of a TOML file, in its order.

    Each `[[device]]` table has any of `name` (text), `count` (default 1), and the bounds `macs`, `params`, `memory` and
    `training-memory` as numbers or as texts such as "30M" and "512KB", and `latency-ms`, which needs a `profile` by
    whose rates it is judged; a bound left out does not bind. Of several devices with one name, each gets the name and
    its number: `sensor-00`, `sensor-01`. The name is also their profile where they have none.

    Raises ConfigurationError that names the file and what in it is wrong.
    """
    tables = _device_tables(path)
    devices: list[VirtualDevice] = []
    for number, table in enumerate(tables, start=1):
        where = f"{path}: device {number}"
        count, name = _count_and_name(table, where)
        if len(devices) + count > MAX_DEVICES:
            raise ConfigurationError(f"{where}: a fleet has at most {MAX_DEVICES:,} devices, not {count:,} more")
        budget, profile = declared_budget(table, where, training)
        for position in range(count):
            given = name if name is None or count == 1 else f"{name}-{position:02d}"
            devices.append(
                VirtualDevice(_checked(given or _device_name(len(devices)), where), profile or name or "", budget)
            )
    _check_distinct(path, [device.name for device in devices])
    return devices


def declared(budget: DeviceBudget) -> dict[str, Scalar]:
    """The keys of a node configuration that declare the budget; a latency is judged by the device's own rates."""
    bounds = {f"max-{key}": getattr(budget, resource) for key, (resource, _) in BOUND_KEYS.items()}
    latency = {} if budget.latency is None else {"max-latency-ms": budget.latency.milliseconds}
    return {**{key: bound for key, bound in bounds.items() if bound is not None}, **latency}


def profile_of(name: str) -> DeviceProfile:
    """The profile of that name; raises ConfigurationError for one that there is not."""
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "a file of devices must end in .toml;"
        raise ConfigurationError(f"unknown device profile {name!r:.80}: {hint} profiles are {', '.join(PROFILES)}")
    return PROFILES[name]


def _deal(settings: FleetSettings, training: LocalTraining) -> list[VirtualDevice]:
    if settings.devices > MAX_DEVICES:
        raise ConfigurationError(f"devices = {settings.devices:,}: a fleet has at most {MAX_DEVICES:,} devices")
    names = [name.strip() for name in settings.fleet.split(",")]
    budgets = {name: profile_of(name).budget(settings.max_latency_ms, training) for name in names}
    dealt = [names[position % len(names)] for position in range(settings.devices)]
    return [VirtualDevice(_device_name(i), profile, budgets[profile]) for i, profile in enumerate(dealt)]


def _device_name(position: int) -> str:
    return f"device-{position:02d}"


def _device_tables(path: Path) -> list[dict[str, Any]]:
    content = read_toml(path, "the fleet file")
    tables = content.get("device")
    if set(content) != {"device"} or not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise ConfigurationError(f"the fleet file {path} must hold [[device]] tables and nothing else")
    if not tables:
        raise ConfigurationError(f"the fleet file {path} describes no device")
    return tables


def _count_and_name(table: Mapping[str, Any], where: str) -> tuple[int, str | None]:
    known = ("name", "count", *BUDGET_KEYS)
    for key in table:
        if key not in known:
            raise ConfigurationError(f"{where}: unknown key {key!r}; known keys are {', '.join(known)}")
    count, name = table.get("count", 1), table.get("name")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigurationError(f"{where}: count must be a positive whole number, not {count!r}")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise ConfigurationError(f"{where}: name must be a text that is not empty, not {name!r}")
    return count, name


def declared_budget(
    table: Mapping[str, Any], where: str, training: LocalTraining = USUAL_TRAINING
) -> tuple[DeviceBudget, str]:
    """The budget of a table with BUDGET_KEYS, and the profile it names, "" for none.

    Raises ConfigurationError that begins with `where` for a bound that cannot be read, or a latency without a profile.
    """
    profile, milliseconds = table.get("profile", ""), table.get("latency-ms")
    if not isinstance(profile, str):
        raise ConfigurationError(f"{where}: profile must be the name of one, not {profile!r:.60}")
    try:
        budget = parse_bounds(table, training=training)
        if milliseconds is not None:
            if not profile:
                raise ConfigurationError("latency-ms needs a profile, by whose rates the time of an image is judged")
            latency = LatencyBound.by(profile_of(profile).rates, parse_milliseconds(milliseconds, "latency-ms"))
            budget = replace(budget, latency=latency)
    except (BudgetError, ConfigurationError) as error:
        raise ConfigurationError(f"{where}: {error}") from None
    return budget, profile


def _checked(name: str, where: str) -> str:
    """`name`, if a server would accept a device that is called so."""
    if not DEVICE_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{where}: a name is made of at most 64 letters, digits, spaces, '.', '_' and '-', the first a letter or a "
            f"digit; not {name!r:.100}"
        )
    return name


def _check_distinct(path: Path, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(f"{path}: two devices are called {name!r}; names must differ")
        seen.add(name)
