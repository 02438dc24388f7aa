"""`feddac device`: what this machine affords, and how to declare it."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.groups import FleetSettings, ModelSettings, SearchSettings
from common.presets import without_preset
from common.settings import key_of
from feddac.cli.display import result_console
from feddac.cli.options import with_settings

if TYPE_CHECKING:
    from rich.table import Table

    from common.budget import DeviceBudget
    from common.fleet import DeviceProfile

USED = ("max_latency_ms", "recipe", "search_space", "channel_floor", "channel_multiple")

EXAMPLES = """
Examples:
  feddac device
  feddac device --model resnet20 --max-latency-ms 5 --json
"""


@with_settings(
    FleetSettings,
    ModelSettings,
    SearchSettings,
    omit=[
        one.name
        for group in (FleetSettings, SearchSettings)
        for one in dataclasses.fields(group)
        if one.name not in USED
    ],
)
def device(
    settings: dict[str, Any],
    input_shape: Annotated[
        str | None,
        typer.Option(help="Channels, height and width of the images (default: 3x32x32).", metavar="CxHxW"),
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes (default: 10).", metavar="N")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure this machine, in a few seconds, and print the budget it would report and how to declare it.

    How long each kind of operation takes is measured on such parts of the network given by --model as the search may
    find. A deployed device with a name and no budget in its node configuration measures itself in the same way, on the
    network of the run.
    """
    from client.measure import measured_profile
    from common.search_space import SearchSpace
    from dac.strides import base_of
    from feddac.cli.commands.describe import shape_of

    settings = without_preset(settings, [*ModelSettings.keys(), *map(key_of, USED)])
    latency = FleetSettings.picked_from(settings).max_latency_ms
    model = ModelSettings.picked_from(settings)
    shape = shape_of(input_shape or "3x32x32")
    base = base_of(model, shape, 10 if classes is None else classes)
    space = SearchSpace.of(SearchSettings.picked_from(settings))
    profile = measured_profile(base, space)
    budget = profile.budget(latency)
    if as_json:
        print(json.dumps(_document(profile, budget), indent=2))
        return
    console = result_console()
    console.print(_table(profile, budget))
    console.print(_rates(profile))
    print(f"To declare it, start the device with:\n--node-config '{node_config(budget)}'")


def node_config(budget: "DeviceBudget") -> str:
    """The value of `flower-supernode --node-config` that declares this machine with `budget`."""
    from client.identity import machine_name
    from common.fleet import declared

    bounds = [f"{key}={bound}" for key, bound in declared(budget).items()]
    return " ".join(["partition-id=0", f'device-name="{machine_name()}"', *bounds])


def _document(profile: "DeviceProfile", budget: "DeviceBudget") -> dict[str, Any]:
    return {
        "rates": profile.rates.to_dict(),
        "memory_bytes": profile.memory_bytes,
        "storage_bytes": profile.storage_bytes,
        "source": profile.source,
        "budget": budget.to_dict(),
        "node_config": node_config(budget),
    }


def _table(profile: "DeviceProfile", budget: "DeviceBudget") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from common.wording import count, plain, size

    rows = (
        ("speed", profile.source),
        ("memory", size(profile.memory_bytes)),
        ("storage", f"{size(profile.storage_bytes)} for parameters"),
        ("budget: latency", f"{budget.latency.milliseconds:g} ms per image" if budget.latency else ""),
        ("budget: parameters", count(budget.params or 0)),
        ("budget: peak memory", size(budget.peak_memory_bytes or 0)),
        ("budget: training memory", size(budget.training_memory_bytes or 0)),
    )
    table = Table(box=SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    table.add_column("this machine")
    for what, figure in rows:
        table.add_row(what, plain(figure))
    return table


def _rates(profile: "DeviceProfile") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from common.rates import KINDS

    table = Table(box=SIMPLE_HEAD)
    table.add_column("kind", no_wrap=True)
    for heading in ("microseconds per call", "per million MACs", "per million values"):
        table.add_column(heading, justify="right")
    for kind in KINDS:
        figures = [1e6 * profile.rates.of(kind, "call"), *(1e12 * profile.rates.of(kind, f) for f in ("mac", "value"))]
        if any(figures):
            table.add_row(kind, *(f"{figure:.3g}" for figure in figures))
    return table
