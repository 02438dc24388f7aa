"""Checkpoints of a federation: everything the next round depends on, replaced in one step after every round.

    checkpoint/latest                        which round to continue from, and the SHA-256 of its state.json
    checkpoint/round-00003/state.json        counters, cohorts, devices, settings, the SHA-256 of each weights file
    checkpoint/round-00003/COHORT.safetensors
    checkpoint/round-00003/method.safetensors    the method's own arrays, if it has any

A round's folder is complete before `latest` names it, and older ones go only afterwards, so that a crash at any instant
leaves one whole checkpoint. Nothing is pickled.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError

from common.arrays import Array, Arrays
from common.atomic import write_atomically
from common.budget import DeviceBudget
from common.config import Config
from common.errors import ArchitectureError, BudgetError, CheckpointError
from common.messages import WEIGHTS
from common.methods import contract_of, network_class
from common.network import Network
from common.reading import MAX_HEADER_BYTES, Unreadable, parse_json, read_limited, sha256_of
from server.cohorts import Cohort, Evaluation, FederationState, Spent
from server.methods.method import Method, Snapshot
from server.resumed_settings import require_same_settings
from server.run import Run

FORMAT = "feddac-checkpoint"
VERSION = 3
METHOD_FILE = "method.safetensors"
MAX_POINTER_BYTES, MAX_STATE_BYTES, MAX_METHOD_BYTES = 2**12, 2**28, 2**34


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    state: FederationState
    cohorts: list[Cohort]
    method: Snapshot


def save_federation(run: Run, method: Method, state: FederationState) -> None:
    """Make this what a later `load_federation` returns."""
    folder = run.folder.checkpoint_folder
    place = folder / f"round-{state.round:05d}"
    shutil.rmtree(place, ignore_errors=True)  # left by a crash before `latest` named it
    cohorts = []
    for cohort in method.cohorts:
        digest = _write_arrays(place / f"{cohort.name}.safetensors", {WEIGHTS: cohort.weights})
        cohorts.append({**_cohort_to_dict(cohort), "sha256": digest})
    snapshot = method.snapshot()
    digest = _write_arrays(place / METHOD_FILE, snapshot.arrays) if snapshot.arrays else ""
    own = {"facts": snapshot.facts, "sha256": digest}
    settings = run.config.to_mapping()
    document = {"format": FORMAT, "version": VERSION, "settings": settings, "state": asdict(state)}
    content = json.dumps({**document, "cohorts": cohorts, "method": own}, indent=1).encode()
    write_atomically(place / "state.json", content)
    pointer = {"folder": place.name, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(folder / "latest", json.dumps(pointer).encode())
    for other in folder.glob("round-*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)


def is_checkpointed(folder: Path) -> bool:
    """Whether `load_federation` would go on from something in `folder`."""
    return (folder / "latest").exists()


def load_federation(folder: Path, config: Config) -> Saved | None:
    """What was saved after the last checkpointed round; None if the run was cut short before its search was over.

    Raises CheckpointError if the checkpoint is damaged, of another version, or of a run with other settings.
    """
    if not is_checkpointed(folder):
        return None
    try:
        pointer = parse_json(_read(folder / "latest", MAX_POINTER_BYTES))
        place = folder / Path(pointer["folder"]).name
        document = json.loads(_verified(place / "state.json", pointer["sha256"], MAX_STATE_BYTES))
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise CheckpointError(
                f"{place} has version {document['version']} of {document['format']}; this program reads version "
                f"{VERSION} of {FORMAT}"
            )
        require_same_settings(document["settings"], config.to_mapping())
        network = network_class(contract_of(config.method.method))
        own = document["method"]
        return Saved(
            _state_from_dict(document["state"]),
            [_cohort_from_dict(place, entry, network) for entry in document["cohorts"]],
            Snapshot(dict(own["facts"]), _read_arrays(place / METHOD_FILE, own["sha256"]) if own["sha256"] else {}),
        )
    except (
        Unreadable,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        ArchitectureError,
        BudgetError,
        SafetensorError,
    ) as error:
        raise CheckpointError(
            f"the checkpoint in {folder} is damaged ({type(error).__name__}: {error}); start a new run"
        ) from None


def _state_from_dict(saved: Mapping[str, Any]) -> FederationState:
    """The inverse of `asdict`."""
    kinds = {one.name: type(getattr(FederationState(), one.name)) for one in fields(FederationState)}
    state = FederationState(**{name: kinds[name](value) for name, value in saved.items()})
    state.budgets = {str(device): DeviceBudget.from_dict(bounds) for device, bounds in saved["budgets"].items()}
    state.strikes = {str(device): int(count) for device, count in saved["strikes"].items()}
    state.stage_seconds = {str(stage): float(seconds) for stage, seconds in saved["stage_seconds"].items()}
    return state


def _cohort_to_dict(cohort: Cohort) -> dict[str, Any]:
    return {
        "name": cohort.name,
        "network": cohort.network.to_json(),
        "search_accuracy": cohort.search_accuracy,
        "devices": cohort.devices,
        "spent": {step: asdict(spent) for step, spent in cohort.spent.items()},
        "evaluation": asdict(cohort.evaluation) if cohort.evaluation else None,
    }


def _cohort_from_dict(place: Path, entry: Mapping[str, Any], kind: type[Network]) -> Cohort:
    network = kind.from_json(entry["network"])
    path = place / f"{Path(entry['name']).name}.safetensors"
    largest = MAX_HEADER_BYTES + 4 * network.layout.size
    weights = _read_arrays(path, entry["sha256"], largest)[WEIGHTS]
    if weights.dtype != "float32" or weights.shape != (network.layout.size,):
        raise CheckpointError(f"{path} is damaged: its weights do not fit the network")
    return Cohort(
        name=str(entry["name"]),
        network=network,
        weights=weights,
        search_accuracy=float(entry["search_accuracy"]),
        devices=[str(name) for name in entry["devices"]],
        spent={str(step): Spent(**spent) for step, spent in entry["spent"].items()},
        evaluation=Evaluation(**entry["evaluation"]) if entry["evaluation"] else None,
    )


def _write_arrays(path: Path, arrays: Arrays) -> str:
    """Write a safetensors file; returns its SHA-256."""
    data = safetensors.numpy.save(dict(arrays))
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def _read_arrays(path: Path, digest: str, largest: int = MAX_METHOD_BYTES) -> dict[str, Array]:
    return dict(safetensors.numpy.load(_verified(path, digest, largest)))


def _verified(path: Path, digest: str, largest: int) -> bytes:
    try:
        intact = sha256_of(path) == digest
    except Unreadable as error:
        raise _unreadable(path, error) from None
    if not intact:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one that was recorded; start a new run")
    return _read(path, largest)


def _read(path: Path, largest: int) -> bytes:
    try:
        return read_limited(path, largest)
    except Unreadable as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Unreadable) -> CheckpointError:
    return CheckpointError(f"cannot read {path}: {error}; start a new run")
