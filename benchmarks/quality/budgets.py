"""The budgets, in groups of which each is served by one search."""

from collections.abc import Mapping
from fractions import Fraction

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.models.description import BaseNetwork
from dac.scaling import uniform

SHARES = {"50%": Fraction(1, 2), "25%": Fraction(1, 4), "12%": Fraction(12, 100), "6%": Fraction(6, 100)}
GROUPS = {
    "macs": tuple(SHARES),
    "joint": tuple(f"joint {name}" for name in SHARES),
    "memory": ("half memory",),
}
"""`macs`: a share of the whole network's MACs. `joint`: at once no more MACs, parameters and peak memory than uniform
scaling has at that share. `memory`: half of the whole network's peak memory, and nothing else."""

# (convolution MACs, parameters) of the five published architectures, and of the published search space's floor
PUBLISHED = {
    "26M": (25_078_464, 714_032),
    "34M": (32_670_560, 840_821),
    "52M": (49_537_856, 1_096_973),
    "64M": (61_603_152, 1_338_287),
    "95M": (91_154_944, 2_296_922),
}
PUBLISHED_FLOOR = (12_319_232, 511_586)


def budgets_of(base: BaseNetwork, group: str) -> Mapping[str, DeviceBudget]:
    """The budgets of a group by name, loosest first."""
    full = Architecture.full(base).costs
    if group == "memory":
        return {"half memory": DeviceBudget(peak_memory_bytes=full.peak_memory_bytes // 2 + 1)}
    shares = {name: DeviceBudget(macs=int(share * full.macs) + 1) for name, share in SHARES.items()}
    if group == "macs":
        return shares
    scaled = {name: uniform(base, budget).costs for name, budget in shares.items()}
    return {
        f"joint {name}": DeviceBudget(
            macs=costs.macs + 1, params=costs.params + 1, peak_memory_bytes=costs.peak_memory_bytes + 1
        )
        for name, costs in scaled.items()
    }


def published_budgets(base: BaseNetwork) -> dict[str, DeviceBudget]:
    """Budgets that lie between floor and full network of `base` where the published ones do in theirs."""
    description = Architecture.full(base).description
    floor, full = description.costs(description.floor_sizes), Architecture.full(base).costs

    def bound(resource: int, published: int, low: int, high: int) -> int:
        share = (published - PUBLISHED_FLOOR[resource]) / (PUBLISHED["95M"][resource] - PUBLISHED_FLOOR[resource])
        return round(low + share * (high - low)) + 1

    return {
        name: DeviceBudget(
            macs=bound(0, macs, floor.macs, full.macs), params=bound(1, params, floor.params, full.params)
        )
        for name, (macs, params) in PUBLISHED.items()
    }
