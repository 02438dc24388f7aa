"""What a device can afford: strict upper bounds on MACs, parameters and peak activation memory."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import BudgetError

RESOURCES = ("macs", "params", "peak_memory_bytes")

_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_BYTE_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
# A comma only groups three digits, so that the 1,5M of other countries is refused, not read as 15M.
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*|(?=\.[0-9]))(?:\.[0-9]*)?(?:e[+-]?[0-9]{1,3})?"


@dataclass(frozen=True)
class Costs:
    """What an architecture needs: exact counts for one image.

    `macs` are multiply-accumulates of convolution and linear layers, `params` are trainable scalars,
    `peak_memory_bytes` is the largest sum of live float32 activations at batch 1.
    """

    macs: int
    params: int
    peak_memory_bytes: int

    def get(self, resource: str) -> int:
        """The amount of one of RESOURCES."""
        return int(getattr(self, resource))

    def __str__(self) -> str:
        return f"{self.macs:,} MACs, {self.params:,} parameters and {self.peak_memory_bytes:,} bytes of peak memory"


@dataclass(frozen=True)
class DeviceBudget:
    """Strict upper bounds, None where the device does not care. Raises BudgetError for a bound that is not positive.

    >>> DeviceBudget(macs=100).admits(Costs(macs=100, params=1, peak_memory_bytes=4))
    False
    """

    macs: int | None = None
    params: int | None = None
    peak_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for resource in RESOURCES:
            bound = getattr(self, resource)
            if bound is None:
                continue
            if isinstance(bound, bool) or not isinstance(bound, int):
                raise BudgetError(f"the {resource} bound must be a whole number, not {bound!r}")
            if bound <= 0:
                raise BudgetError(f"the {resource} bound must be positive, not {bound}")

    def bound(self, resource: str) -> float:
        """The bound on one of RESOURCES; infinity where there is none."""
        value: int | None = getattr(self, resource)
        return math.inf if value is None else value

    def violated(self, costs: Costs) -> list[str]:
        """The resources of which `costs` takes as much as the bound or more."""
        return [resource for resource in RESOURCES if costs.get(resource) >= self.bound(resource)]

    def admits(self, costs: Costs) -> bool:
        """Whether every cost is strictly below its bound."""
        return not self.violated(costs)

    def meet(self, other: "DeviceBudget") -> "DeviceBudget":
        """The budget that is as tight as either: the smaller of each bound."""
        return DeviceBudget(*(_to_bound(min(self.bound(r), other.bound(r))) for r in RESOURCES))

    def join(self, other: "DeviceBudget") -> "DeviceBudget":
        """The tightest budget that is as loose as both: the larger of each bound."""
        return DeviceBudget(*(_to_bound(max(self.bound(r), other.bound(r))) for r in RESOURCES))

    def within(self, other: "DeviceBudget") -> bool:
        """Whether whatever this budget admits, `other` admits too."""
        return all(self.bound(r) <= other.bound(r) for r in RESOURCES)

    def __str__(self) -> str:
        names = {"macs": "MACs", "params": "parameters", "peak_memory_bytes": "bytes of peak memory"}
        bounds = [f"{getattr(self, r):,} {names[r]}" for r in RESOURCES if getattr(self, r) is not None]
        return "below " + ", ".join(bounds) if bounds else "unbounded"


def parse_count(text: str, what: str) -> int:
    """A count such as `30M`, `1.2e6` or `512k`; raises BudgetError naming `what` otherwise.

    >>> parse_count("1.5M", "--max-macs")
    1500000
    """
    return _parse(text, what, _COUNT_UNITS, "a positive number such as 30M, 1.2e6 or 500k")


def parse_bytes(text: str, what: str) -> int:
    """A size such as `512KB` (10^3) or `2MiB` (2^20); raises BudgetError naming `what` otherwise."""
    return _parse(text, what, _BYTE_UNITS, "a positive size such as 512KB or 2MiB")


def parse_bounds(values: Mapping[str, object], prefix: str = "") -> DeviceBudget:
    """The budget whose bounds are under `macs`, `params` and `memory`, each after `prefix`; a missing one is none.

    Raises BudgetError that names the key.

    >>> str(parse_bounds({"max-macs": "30M", "max-memory": "512KB"}, "max-"))
    'below 30,000,000 MACs, 512,000 bytes of peak memory'
    """
    parsers = {"macs": parse_count, "params": parse_count, "memory": parse_bytes}
    keys = {name: prefix + name for name in parsers}
    return DeviceBudget(
        *(parsers[name](str(values[key]), key) if key in values else None for name, key in keys.items())
    )


def _parse(text: str, what: str, units: dict[str, int], wanted: str) -> int:
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in units:
        raise BudgetError(f"{what} must be {wanted}, not {text!r}")
    value = float(match[1].replace("_", "").replace(",", "")) * units[match[2]]
    if not 1 <= value < 2**62:
        raise BudgetError(f"{what} must be {wanted}, not {text!r}")
    return round(value)


def _to_bound(value: float) -> int | None:
    return None if value == math.inf else int(value)
