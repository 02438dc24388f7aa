"""Architecture files: what a search found, as JSON beside a safetensors file of weights."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.costs import largest_tensor_elements, thop_macs
from common.errors import ArchitectureError
from common.layout import State

FORMAT = "feddac-architecture"
VERSION = 1


@dataclass(frozen=True)
class Member:
    """One architecture of a family: the budget it serves, its weights, and its accuracy on the validation split."""

    architecture: Architecture
    budget: DeviceBudget
    state: State
    validation_accuracy: float
    parent: int | None = None


def save_member(path: Path, member: Member, *, name: str, parent: str | None, seed: int) -> None:
    """Write `path` (JSON) and its weights beside it; each file appears whole or not at all."""
    architecture = member.architecture
    costs, full = architecture.costs, Architecture.full(architecture.base)
    weights = path.with_suffix(".safetensors")
    _replace(weights, lambda temporary: save_file({k: v.contiguous() for k, v in member.state.items()}, temporary))
    budget = member.budget
    data = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        **architecture.to_dict(),
        "sizes": architecture.sizes,
        "base_sizes": {**full.sizes, **dict.fromkeys(architecture.removed, 1)},
        "costs": {
            "macs": costs.macs,
            "params": costs.params,
            "peak_memory_bytes": costs.peak_memory_bytes,
            "thop_macs": thop_macs(architecture),
            "largest_tensor_elements": largest_tensor_elements(architecture),
        },
        "budget": {"macs": budget.macs, "params": budget.params, "peak_memory_bytes": budget.peak_memory_bytes},
        "validation_accuracy": member.validation_accuracy,
        "seed": seed,
        "parent": parent,
        "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
    }
    _replace(path, lambda temporary: temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8"))


def load_architecture(path: Path) -> Architecture:
    """The architecture of a file; raises ArchitectureError in one sentence for anything that is not one."""
    return Architecture.from_dict(_read(path))


def load_member(path: Path) -> Member:
    """Architecture and weights; raises ArchitectureError if either is missing, damaged or does not fit the other."""
    data = _read(path)
    architecture = Architecture.from_dict(data)
    try:
        weights = path.with_name(Path(data["weights"]["file"]).name)
        content = weights.read_bytes()
        if hashlib.sha256(content).hexdigest() != data["weights"]["sha256"]:
            raise ArchitectureError(f"{weights} is damaged: its SHA-256 is not the one {path.name} names")
        state = load_file(weights)
        architecture.build_from(state)
        budget = DeviceBudget(**data["budget"])
        return Member(architecture, budget, state, float(data["validation_accuracy"]))
    except ArchitectureError:
        raise
    except Exception as error:  # safetensors, torch and json each raise their own kinds
        raise ArchitectureError(f"{path} is damaged: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArchitectureError(f"cannot read the architecture file {path}: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ArchitectureError(f"{path} is not a FedDAC architecture file")
    if data.get("version") != VERSION:
        raise ArchitectureError(f"{path} has version {data.get('version')}; this program reads version {VERSION}")
    return data


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)
