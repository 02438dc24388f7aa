"""Which change of the settings helps where a device affords no network: the first of some that works is named."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from common.budget import RESOURCES
from common.config import Config
from common.data.images import DataSet
from common.errors import BudgetError
from common.fleet import PROFILES, is_fleet_file
from common.groups import AUTO_STEM, AUTO_STRIDES
from common.methods import contract_of
from common.models.networks import OWN
from common.search_space import SearchSpace
from common.settings import Scalar
from dac.plan import floor_costs
from dac.strides import is_chosen
from server.reference import base_network

WIDTHS = (0.75, 0.5, 0.35, 0.25)
CAPS = dict(zip(RESOURCES, ("max-macs", "max-params", "max-memory"), strict=True))


def remedy(config: Config, data: DataSet, check: Callable[[Config], object]) -> dict[str, Scalar]:
    """The first changes, by kebab-case keys, with which `check` raises no BudgetError; none if nothing helps.

    First what leaves the devices as they are (strides, width, the larger search space), then what asks more of them.
    """
    candidates = (*of_network(config), *_of_fleet(config, data))
    return first_that_works(candidates, lambda changes: check(config.changed(changes)))


def first_that_works(
    candidates: Iterable[Mapping[str, Scalar]], check: Callable[[Mapping[str, Scalar]], object]
) -> dict[str, Scalar]:
    """The first of `candidates` for which `check` raises no BudgetError; nothing if there is none."""
    for changes in candidates:
        try:
            check(changes)
        except BudgetError:
            continue
        return dict(changes)
    return {}


def of_network(config: Config) -> Iterator[dict[str, Scalar]]:
    """Changes of the network and of what a search may remove of it, from the mildest to the strongest."""
    strides: dict[str, Scalar] = {}
    if is_chosen(config.model) and config.model.model == "mobilenet_v2":
        strides = {"stem-stride": AUTO_STEM, "strides": AUTO_STRIDES}
        yield strides
    narrower = [width for width in WIDTHS if width < config.model.width] if config.model.model in OWN else []
    for width in narrower:
        yield {**strides, "width": width}
    if config.search.search_space == "inner" and contract_of(config.method.method).reads_setting("search-space"):
        yield {**strides, "search-space": "all"}
        if narrower:
            yield {**strides, "width": narrower[-1], "search-space": "all"}


def _of_fleet(config: Config, data: DataSet) -> Iterator[dict[str, Scalar]]:
    """Looser bounds, longer time for one inference, and a fleet without the profiles that cannot take part."""
    floor = floor_costs(base_network(config.model, data), SearchSpace.of(config.search))
    caps: dict[str, Scalar] = {
        key: enough(floor.get(resource)) for resource, key in CAPS.items() if config.fleet.to_mapping()[key] != ""
    }
    for key in caps:
        yield {key: caps[key]}
    if len(caps) > 1:
        yield caps
    if is_fleet_file(config.fleet.fleet):
        return
    names = [name.strip() for name in config.fleet.fleet.split(",")]
    enough_ms = float(math.ceil(1001 * max(PROFILES[name].rates.seconds_for(floor.work()) for name in names)))
    if enough_ms > config.fleet.max_latency_ms:
        yield {**caps, "max-latency-ms": enough_ms}
    able = [name for name in names if PROFILES[name].budget(config.fleet.max_latency_ms).admits(floor)]
    if able and len(able) < len(names):
        yield {**caps, "fleet": ",".join(able)}


def enough(cost: int) -> str:
    """A bound above `cost`, as a person writes it: two digits and a unit.

    >>> enough(503434), enough(999), enough(905)
    ('510K', '1.0K', '0.91K')
    """
    for unit, size in (("M", 10**6), ("K", 10**3)):
        if cost + 1 > 0.9 * size:
            step = 10 ** (len(str(cost + 1)) - 2)
            value = -(-(cost + 1) // step) * step / size
            return f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f}{unit}"
    return str(cost + 1)
