"""`feddac device`: what this machine affords, and how to declare it."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.groups import FleetSettings
from feddac.cli.display import result_console
from feddac.cli.options import with_settings

if TYPE_CHECKING:
    from rich.table import Table

    from common.budget import DeviceBudget
    from common.fleet import DeviceProfile

USED = ("target_latency_ms",)
EPOCH_IMAGES = 1000

EXAMPLES = """
Examples:
  feddac device
  feddac device --target-latency-ms 5 --json
"""


@with_settings(FleetSettings, omit=[one.name for one in dataclasses.fields(FleetSettings) if one.name not in USED])
def device(
    settings: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Measure this machine, in a few seconds, and print the budget it would report and how to declare it.

    A device whose node configuration declares no budget measures itself in the same way.
    """
    from client.measure import measured_profile

    latency = FleetSettings.from_mapping(settings).target_latency_ms
    profile = measured_profile()
    budget = profile.budget(latency)
    if as_json:
        print(json.dumps(_document(profile, budget, latency), indent=2))
        return
    result_console().print(_table(profile, budget, latency))
    print(f"To declare it, start the device with:\n--node-config '{node_config(budget)}'")


def node_config(budget: "DeviceBudget") -> str:
    """The value of `flower-supernode --node-config` that declares this machine with `budget`."""
    from client.identity import machine_name

    bounds = {"max-macs": budget.macs, "max-params": budget.params, "max-memory": budget.peak_memory_bytes}
    declared = [f"{key}={bound}" for key, bound in bounds.items() if bound is not None]
    return " ".join(["partition-id=0", f'device-name="{machine_name()}"', *declared])


def _document(profile: "DeviceProfile", budget: "DeviceBudget", latency: float) -> dict[str, Any]:
    return {
        "macs_per_second": profile.macs_per_second,
        "memory_bytes": profile.memory_bytes,
        "storage_bytes": profile.storage_bytes,
        "source": profile.source,
        "target_latency_ms": latency,
        "budget": dataclasses.asdict(budget),
        "node_config": node_config(budget),
    }


def _table(profile: "DeviceProfile", budget: "DeviceBudget", latency: float) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from client.measure import seconds_per_epoch
    from server.report.wording import NARROW_SPACE, count, size

    rows = (
        ("speed", f"{count(profile.macs_per_second)} MACs per second, {profile.source.partition(' with ')[2]}"),
        ("memory", size(profile.memory_bytes)),
        ("storage", f"{size(profile.storage_bytes)} for parameters"),
        ("budget: MACs", f"{count(budget.macs or 0)} at {latency:g} ms per image"),
        ("budget: parameters", count(budget.params or 0)),
        ("budget: peak memory", size(budget.peak_memory_bytes or 0)),
        ("training", f"at most {seconds_per_epoch(latency, EPOCH_IMAGES):g} s per epoch of {EPOCH_IMAGES:,} images"),
    )
    table = Table(box=SIMPLE_HEAD)
    table.add_column("what", no_wrap=True)
    table.add_column("this machine", no_wrap=True)
    for what, figure in rows:
        table.add_row(what, figure.replace(NARROW_SPACE, " "))
    return table
