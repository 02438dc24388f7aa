"""Checkpoints of a federation: everything the next round depends on, replaced in one step after every round.

    checkpoint/latest                        which round to continue from, and the SHA-256 of its state.json
    checkpoint/round-00003/state.json        counters, cohorts, devices, settings, the SHA-256 of each weights file
    checkpoint/round-00003/COHORT.safetensors

A round's folder is complete before `latest` names it, and older ones go only afterwards, so that a crash at any instant
leaves one whole checkpoint. Nothing is pickled.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.numpy
from safetensors import SafetensorError

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config, Scalar
from common.errors import ArchitectureError, BudgetError, CheckpointError
from server.cohorts import Cohort, Evaluation, FederationState
from server.run_folder import write_atomically

FORMAT = "feddac-checkpoint"
VERSION = 2

FREE_SETTINGS = frozenset(
    ("out", "data-folder", "rounds", "handshake-timeout", "round-timeout", "test-batch-size", "accelerator")
)
"""Settings that may differ when a run is resumed: they say how and how long it runs, not what it computes."""


def save_checkpoint(folder: Path, state: FederationState, config: Config) -> None:
    """Make `state` what a later `load_checkpoint` returns."""
    place = folder / f"round-{state.round:05d}"
    shutil.rmtree(place, ignore_errors=True)  # left by a crash before `latest` named it
    cohorts = []
    for cohort in state.cohorts:
        data = safetensors.numpy.save({"weights": cohort.weights})
        write_atomically(place / f"{cohort.name}.safetensors", data)
        cohorts.append(_cohort_to_dict(cohort, hashlib.sha256(data).hexdigest()))
    counters = {
        "round": state.round,
        "best_accuracy": state.best_accuracy,
        "stale_evaluations": state.stale_evaluations,
        "fruitless_rounds": state.fruitless_rounds,
        "stage_seconds": state.stage_seconds,
        "peak_rss_bytes": state.peak_rss_bytes,
        "stopped_early": state.stopped_early,
        "strikes": state.strikes,
        "budgets": {device: asdict(budget) for device, budget in state.budgets.items()},
    }
    settings = config.to_mapping()
    document = {"format": FORMAT, "version": VERSION, "settings": settings, **counters, "cohorts": cohorts}
    content = json.dumps(document, indent=1).encode()
    write_atomically(place / "state.json", content)
    pointer = {"folder": place.name, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(folder / "latest", json.dumps(pointer).encode())
    for other in folder.glob("round-*"):
        if other != place:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(folder: Path, config: Config) -> FederationState | None:
    """The state after the last checkpointed round; None if the run was cut short before its search was over.

    Raises CheckpointError if the checkpoint is damaged, of another version, or of a run with other settings.
    """
    latest = folder / "latest"
    if not latest.exists():
        return None
    try:
        pointer = json.loads(_read(latest))
        place = folder / Path(pointer["folder"]).name
        document = json.loads(_verified(place / "state.json", pointer["sha256"]))
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise CheckpointError(
                f"{place} has version {document['version']} of {document['format']}; this program reads version "
                f"{VERSION} of {FORMAT}"
            )
        _require_same_settings(document["settings"], config)
        return FederationState(
            cohorts=[_cohort_from_dict(place, entry) for entry in document["cohorts"]],
            round=int(document["round"]),
            best_accuracy=float(document["best_accuracy"]),
            stale_evaluations=int(document["stale_evaluations"]),
            fruitless_rounds=int(document["fruitless_rounds"]),
            stage_seconds={str(stage): float(seconds) for stage, seconds in document["stage_seconds"].items()},
            peak_rss_bytes=int(document["peak_rss_bytes"]),
            stopped_early=bool(document["stopped_early"]),
            strikes={str(device): int(count) for device, count in document["strikes"].items()},
            budgets={str(device): DeviceBudget(**bounds) for device, bounds in document["budgets"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, ArchitectureError, BudgetError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint in {folder} is damaged ({type(error).__name__}: {error}); start a new run"
        ) from None


def _cohort_to_dict(cohort: Cohort, digest: str) -> dict[str, Any]:
    return {
        "name": cohort.name,
        "architecture": cohort.architecture.to_dict(),
        "search_accuracy": cohort.search_accuracy,
        "devices": cohort.devices,
        "bytes_down": cohort.bytes_down,
        "bytes_up": cohort.bytes_up,
        "evaluation": asdict(cohort.evaluation) if cohort.evaluation else None,
        "sha256": digest,
    }


def _cohort_from_dict(place: Path, entry: Mapping[str, Any]) -> Cohort:
    architecture = Architecture.from_dict(entry["architecture"])
    path = place / f"{Path(entry['name']).name}.safetensors"
    weights = safetensors.numpy.load(_verified(path, entry["sha256"]))["weights"]
    if weights.dtype != "float32" or weights.shape != (architecture.layout.size,):
        raise CheckpointError(f"{path} is damaged: its weights do not fit the architecture")
    return Cohort(
        name=str(entry["name"]),
        architecture=architecture,
        weights=weights,
        search_accuracy=float(entry["search_accuracy"]),
        devices=[str(name) for name in entry["devices"]],
        bytes_down=int(entry["bytes_down"]),
        bytes_up=int(entry["bytes_up"]),
        evaluation=Evaluation(**entry["evaluation"]) if entry["evaluation"] else None,
    )


def _require_same_settings(saved: Mapping[str, Scalar], config: Config) -> None:
    for key, value in config.to_mapping().items():
        if key not in FREE_SETTINGS and saved.get(key) != value:
            raise CheckpointError(
                f"the checkpoint is of a run with {key} = {saved.get(key)!r}, not {value!r}: resume it with its own "
                "settings, or start a new run"
            )


def _verified(path: Path, digest: str) -> bytes:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one that was recorded; start a new run")
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}; start a new run") from None
