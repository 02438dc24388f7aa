"""The trained models of a folder: of a federated run, of `feddac train`, of `feddac search`, or a single file."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import CheckpointError, ConfigurationError
from common.models import allow_network
from dac.files import load_member, weights_path
from server.run_folder import DEVICE_MODEL, RunFolder

KINDS = ("cohort", "device", "profile")
ALL = "all"


@dataclass(frozen=True)
class StoredModel:
    """Where a model is and whom it is for.

    `name` is that of the cohort, of the budget that a search served, or of the file. `devices` and `profiles` are
    those of the cohort. `reported_accuracy` is the test accuracy (0 to 1) that the folder's summary gives, if it is of
    this model.
    """

    name: str
    path: Path
    devices: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    reported_accuracy: float | None = None

    def answers_to(self, kind: str, name: str) -> bool:
        """Whether this is the model of the cohort, of the device or of a device of the profile `name`."""
        return name in {"cohort": (self.name,), "device": self.devices, "profile": self.profiles}[kind]


def find_models(place: Path) -> list[StoredModel]:
    """The models in `place`: a folder that a command of FedDAC made, a model file or an architecture file.

    Those of a federated run have the weights after its last round. Raises CheckpointError if there is no model (yet),
    ArchitectureError for a damaged architecture file.
    """
    if place.suffix == ".json" and place.is_file():
        load_member(place)  # compares the weights with the sum that the file names
        return [StoredModel(place.stem, weights_path(place))]
    if place.is_file():
        return [StoredModel(place.stem, place)]
    folder = RunFolder.open(place)
    allow_network(str(folder.read_config().get("model", "")))
    summary = folder.read_summary() if folder.summary_path.exists() else {}
    kind = folder.kind
    models = {"simulate": _federated, "train": _trained, "search": _searched}[kind](folder, summary)
    if not models:
        raise CheckpointError(f"{place} holds no trained model yet; let it finish with: feddac {kind} --resume {place}")
    return models


def choose_models(models: Sequence[StoredModel], wanted: str, kind: str = "") -> list[StoredModel]:
    """Those of `models` that answer to the name `wanted`, as a cohort, device or profile; all of them for ALL.

    With `kind`, one of KINDS, only as that. A profile may be in several cohorts and so have several models. Raises
    ConfigurationError for a name that is nobody's, with the nearest one.
    """
    if wanted == ALL and not kind:
        return list(models)
    for one in [kind] if kind else KINDS:
        found = [model for model in models if model.answers_to(one, wanted)]
        if found:
            return found
    names = [name for one in models for name in (one.name, *one.profiles, *one.devices)]
    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f": did you mean {near[0]}?" if near else "."
    known = ", ".join(dict.fromkeys(name for one in models for name in (one.name, *one.profiles)))
    raise ConfigurationError(
        f"there is no {kind or 'cohort, device or profile'} called {wanted!r}{hint} There are {known}, and {ALL}"
    )


def _federated(folder: RunFolder, summary: Mapping[str, Any]) -> list[StoredModel]:
    entries = folder.read_budgets()
    # Of the two networks of a cohort of fedgkt this setting says which was scored.
    scored = DEVICE_MODEL if folder.read_config().get("fedgkt-score") == "device" else ""
    reported = {f"{entry.get('cohort')}{scored}": entry.get("test_accuracy") for entry in summary.get("cohorts", [])}
    models = []
    found = {path.stem: path for path in folder.models_folder.glob("*.safetensors")}
    for name in sorted(found, key=_natural_order):
        path, home = found[name], name.removesuffix(DEVICE_MODEL)
        own = [] if name + DEVICE_MODEL in found else [entry for entry in entries if entry.cohort == home]
        devices = tuple(entry.name for entry in own)
        profiles = tuple(dict.fromkeys(entry.profile for entry in own if entry.profile))
        models.append(StoredModel(name, path, devices, profiles, reported.get(name)))
    return models


def _trained(folder: RunFolder, summary: Mapping[str, Any]) -> list[StoredModel]:
    path = folder.architecture_path("trained")
    return [StoredModel("trained", weights_path(path), (), (), summary.get("test_accuracy"))] if path.exists() else []


def _searched(folder: RunFolder, summary: Mapping[str, Any]) -> list[StoredModel]:
    paths = {entry.name: folder.architecture_path(entry.name) for entry in folder.read_budgets()}
    return [StoredModel(name, weights_path(path)) for name, path in paths.items() if path.exists()]


def _natural_order(name: str) -> list[tuple[int, str]]:
    """cohort-2 before cohort-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
