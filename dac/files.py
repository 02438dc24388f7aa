"""Architecture files: what a search found, as JSON beside a safetensors file of weights."""

import hashlib
import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from common.architecture import Architecture
from common.atomic import replacing, write_atomically
from common.budget import DeviceBudget
from common.costs import largest_tensor_elements, thop_macs
from common.errors import ArchitectureError
from common.layout import State
from common.reading import Unreadable, printable, read_json
from dac.model_file import Preparation, metadata
from dac.weights import read_weights

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


def save_member(
    path: Path,
    member: Member,
    *,
    name: str,
    parent: str | None,
    seed: int,
    stage: str = "search",
    preparation: Preparation | None = None,
) -> None:
    """Write `path` (JSON) and its weights beside it, as NAME.STAGE.safetensors; each appears whole or not at all.

    `stage` is one of `dac.model_file.STAGES`; a file that is called by its stage says it once.
    """
    architecture = member.architecture
    costs, full = architecture.costs, Architecture.full(architecture.base)
    weights = path.with_suffix(".safetensors" if path.stem == stage else f".{stage}.safetensors")
    facts = metadata(name, stage, architecture, preparation)
    tensors = {key: tensor.contiguous() for key, tensor in member.state.items()}
    with replacing(weights) as temporary:
        save_file(tensors, temporary, facts)
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
        "budget": budget.to_dict(),
        "validation_accuracy": member.validation_accuracy,
        "seed": seed,
        "parent": parent,
        "weights": {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()},
    }
    write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())


def load_architecture(path: Path) -> Architecture:
    """The architecture of a file; raises ArchitectureError in one sentence for anything that is not one."""
    return Architecture.from_dict(_read(path))


def load_member(path: Path) -> Member:
    """Architecture and weights; raises ArchitectureError if either is missing, damaged or does not fit the other."""
    data = _read(path)
    architecture = Architecture.from_dict(data)
    try:
        weights = path.with_name(Path(data["weights"]["file"]).name)
        try:
            state = read_weights(weights, data["weights"]["sha256"], architecture)
        except Unreadable as error:
            raise ArchitectureError(f"cannot read the weights {weights}: {error}") from None
        budget = DeviceBudget.from_dict(data["budget"])
        return Member(architecture, budget, state, float(data["validation_accuracy"]))
    except ArchitectureError:
        raise
    except Exception as error:  # safetensors, torch and json each raise their own kinds
        raise ArchitectureError(f"{path} is damaged: {error}") from None


def weights_path(path: Path) -> Path:
    """Where the weights of the architecture file `path` are, which it names; raises ArchitectureError."""
    try:
        return path.with_name(Path(_read(path)["weights"]["file"]).name)
    except (KeyError, TypeError, ValueError) as error:
        raise ArchitectureError(f"{path} is damaged: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path)
    except Unreadable as error:
        raise ArchitectureError(f"cannot read the architecture file {printable(path)}: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ArchitectureError(f"{path} is not a FedDAC architecture file")
    if data.get("version") != VERSION:
        raise ArchitectureError(
            f"{path} has version {reprlib.repr(data.get('version'))}; this program reads version {VERSION}"
        )
    return data
