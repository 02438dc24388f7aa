"""The published file of architectures, `net_cfg.json`, read and written.

One object per architecture, largest first: `{"KEY": {"macs": 64238800.0, "params": 1338287.0, "cfg": [[inner, out,
stride], ...]}}`, with one triple per block of MobileNetV2. Its MACs are those of the profiler thop (see
`common.costs.thop_macs`). Only widths are kept, so an architecture that is read keeps the first channels of each block.
"""

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.architecture import Architecture
from common.atomic import write_atomically
from common.costs import thop_macs
from common.errors import ArchitectureError, BudgetError
from common.models.description import BaseNetwork
from common.models.mobilenet_v2 import STAGES
from common.reading import Unreadable, printable, read_json


@dataclass(frozen=True)
class Published:
    """One entry: the architecture and the figures the file gives for it (thop's MACs)."""

    architecture: Architecture
    macs: float
    params: float


def is_published(path: Path) -> bool:
    """Whether a JSON file looks like a published one rather than an architecture file of ours.

    Raises ArchitectureError if it cannot be read or is not JSON.
    """
    return "format" not in _read(path)


def read_published(path: Path, base: BaseNetwork) -> dict[str, Published]:
    """Every entry of the file by key, in the file's order, cut from `base`.

    Raises ArchitectureError for a file that is not of this format, or whose blocks are not those of `base`.
    """
    if base.model != "mobilenet_v2":
        raise ArchitectureError(f"{path} describes mobilenet_v2 networks, not {base.model}; use --model mobilenet_v2")
    full = Architecture.full(base)
    entries = {}
    for key, entry in _read(path).items():
        where = f"{path}, key {reprlib.repr(key)}"
        if not isinstance(entry, dict) or not {"macs", "params", "cfg"} <= set(entry):
            raise ArchitectureError(f"{where}: an entry has macs, params and cfg")
        widths = _widths(where, entry["cfg"], full)
        architecture = Architecture.with_kept(base, {name: range(width) for name, width in widths.items()})
        entries[key] = Published(
            architecture, _figure(where, "macs", entry["macs"]), _figure(where, "params", entry["params"])
        )
    if not entries:
        raise ArchitectureError(f"{path} holds no architecture")
    return entries


def by_key(entries: Mapping[str, Published], key: str) -> Architecture:
    """The architecture of a key; raises ArchitectureError with the keys there are."""
    if key not in entries:
        raise ArchitectureError(f"there is no architecture {key!r}; the file has {', '.join(entries)}")
    return entries[key].architecture


def first_within(entries: Mapping[str, Published], macs: float, params: float) -> str:
    """The first key with fewer than `macs` (as thop counts) and `params`: how the published program chooses.

    Raises BudgetError if there is none.
    """
    for key, entry in entries.items():
        if entry.macs < macs and entry.params < params:
            return key
    least_macs, least_params = (min(getattr(entry, name) for entry in entries.values()) for name in ("macs", "params"))
    raise BudgetError(
        f"no architecture of the file lies below {macs:,.0f} thop MACs and {params:,.0f} parameters; the smallest have "
        f"{least_macs:,.0f} and {least_params:,.0f}"
    )


def is_publishable(architecture: Architecture) -> bool:
    """Whether the published format can say what it is: a MobileNetV2 of which only channels inside blocks are gone."""
    whole = all(
        architecture.sizes[group.name] == group.size for group in architecture.description.groups if not group.prunable
    )
    return architecture.base.model == "mobilenet_v2" and whole and not architecture.removed


def write_published(path: Path, architectures: Mapping[str, Architecture]) -> None:
    """Write architectures of mobilenet_v2 by key, those with the most MACs first; the file appears whole or not at all.

    Raises ArchitectureError for what `is_publishable` is not.
    """
    entries = {}
    for key, architecture in sorted(architectures.items(), key=lambda item: -item[1].costs.macs):
        if architecture.base.model != "mobilenet_v2":
            raise ArchitectureError(f"the published format is for mobilenet_v2, not {architecture.base.model}")
        if not is_publishable(architecture):
            raise ArchitectureError(
                f"the published format cannot say what {key} is: more than channels inside blocks is gone"
            )
        sizes = architecture.sizes
        entries[key] = {
            "macs": float(thop_macs(architecture)),
            "params": float(architecture.costs.params),
            "cfg": [[sizes[inner], sizes[out], stride] for inner, out, stride in _blocks(architecture)],
        }
    write_atomically(path, (json.dumps(entries) + "\n").encode())


def _blocks(architecture: Architecture) -> list[tuple[str, str, int]]:
    """Inner group, out group and stride of every block."""
    layers = architecture.description.layer_by_name
    strides = [
        stride if position == 0 else 1
        for (_, _, count, _), stride in zip(STAGES, architecture.base.strides, strict=True)
        for position in range(count)
    ]
    names = [f"blocks.{number}" for number in range(len(strides))]
    return [
        (layers[f"{name}.expand_conv"].target[0].group, layers[f"{name}.project_conv"].target[0].group, stride)
        for name, stride in zip(names, strides, strict=True)
    ]


def _widths(where: str, blocks: Any, full: Architecture) -> dict[str, int]:
    """Channels of every inner group."""
    wanted, sizes = _blocks(full), full.sizes
    if not isinstance(blocks, list) or len(blocks) != len(wanted):
        raise ArchitectureError(f"{where}: cfg must list the {len(wanted)} blocks of mobilenet_v2")
    widths = {}
    for number, (block, (inner, out, stride)) in enumerate(zip(blocks, wanted, strict=True)):
        if not isinstance(block, list) or len(block) != 3 or not all(type(one) is int for one in block):
            raise ArchitectureError(f"{where}: block {number} must be [inner, out, stride], not {reprlib.repr(block)}")
        if block[1] != sizes[out]:
            raise ArchitectureError(
                f"{where}: block {number} gives out {block[1]} channels, the base network {sizes[out]}; change --width"
            )
        if block[2] != stride:
            raise ArchitectureError(
                f"{where}: block {number} has stride {block[2]}, the base network {stride}; change --strides"
            )
        if not 1 <= block[0] <= sizes[inner]:
            raise ArchitectureError(f"{where}: block {number} can have 1 to {sizes[inner]} channels, not {block[0]}")
        widths[inner] = block[0]
    return widths


def _figure(where: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ArchitectureError(f"{where}: {name} must be a positive number, not {reprlib.repr(value)}")
    return float(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
    except Unreadable as error:
        raise ArchitectureError(f"cannot read the architecture file {printable(path)}: {error}") from None
    if not isinstance(data, dict):
        raise ArchitectureError(f"{path} holds no architecture: it is not a JSON object")
    return data
