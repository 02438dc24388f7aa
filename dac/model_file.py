"""Model files: weights as safetensors, with all that is needed to use them in the file itself.

The metadata of the file has one entry, `feddac`, which is JSON:

    version         of FedDAC that wrote it
    name            of the cohort or budget
    stage           which weights these are: a key of STAGES
    architecture    as `Architecture.to_dict` gives it
    image_size      [height, width] of the images that the network takes
    mean, std       per channel, of images scaled to 0..1: the network takes (image / 255 - mean) / std
    class_names     what the outputs stand for, in order

The last three are missing where whoever wrote the file did not know them. One entry and not seven, because safetensors
writes several in an order that differs from process to process, and equal runs shall write equal files.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError

from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.errors import ArchitectureError
from common.layout import State
from common.reading import Unreadable, parse_json, printable, tensor_file_header
from common.version import version
from dac.weights import read_own_weights

KEY = "feddac"
LONGEST_FACT = 200
STAGES = {
    "search": "as the search left them",
    "before-federation": "as they were before the first round",
    "federated": "as they were after the last round",
    "start": "as a training began with them",
    "teacher": "as another network was taught with them",
    "trained": "as they were after the last epoch of training",
}


@dataclass(frozen=True)
class Preparation:
    """How an image becomes what a network takes, and what its outputs are called.

    `mean` and `std` have one value per channel and are those of images scaled to 0..1. Raises ArchitectureError if they
    differ in length.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ArchitectureError(f"there are means of {len(self.mean)} channels and deviations of {len(self.std)}")

    @classmethod
    def of(cls, preprocessor: Preprocessor, class_names: Sequence[str]) -> Self:
        """The preparation that `preprocessor` evaluates with."""
        return cls(tuple(preprocessor.mean.tolist()), tuple(preprocessor.std.tolist()), tuple(class_names))

    def check_fits(self, architecture: Architecture) -> None:
        """Raise ArchitectureError unless there is a mean for every channel and a name for every class."""
        channels, classes = architecture.base.input_shape[0], architecture.base.classes
        if (len(self.mean), len(self.class_names)) != (channels, classes):
            raise ArchitectureError(
                f"the network takes {channels} channels and tells {classes} classes, but there are means of "
                f"{len(self.mean)} and names of {len(self.class_names)}"
            )


@dataclass(frozen=True)
class Model:
    """What a model file holds; `preparation` is None where it does not say how images are prepared."""

    name: str
    stage: str
    architecture: Architecture
    preparation: Preparation | None
    version: str
    state: State


def metadata(name: str, stage: str, architecture: Architecture, preparation: Preparation | None) -> dict[str, str]:
    """What goes into a safetensors file beside its weights; raises ArchitectureError if the parts do not fit."""
    facts: dict[str, Any] = {
        "version": version(),
        "name": name,
        "stage": stage,
        "architecture": architecture.to_dict(),
        "image_size": list(architecture.base.input_shape[1:]),
    }
    if preparation is not None:
        preparation.check_fits(architecture)
        facts |= {"mean": preparation.mean, "std": preparation.std, "class_names": preparation.class_names}
    return {KEY: json.dumps(facts)}


def read_model(path: Path) -> Model:
    """The model in a safetensors file; raises ArchitectureError for one that is missing, damaged or not ours."""
    try:
        text = tensor_file_header(path)[1].get(KEY)
        if not isinstance(text, str):
            raise ArchitectureError(f"{path} does not say what network its weights are of; FedDAC did not write it")
        return _model(path, _facts(text))
    except Unreadable as error:
        raise ArchitectureError(f"cannot read the model file {printable(path)}: {error}") from None
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError, _Damaged) as error:
        raise ArchitectureError(f"{printable(path)} is damaged: {error}") from None


class _Damaged(Exception):
    """What a model file says of itself cannot be."""


def _facts(text: str) -> dict[str, Any]:
    try:
        facts = parse_json(text)
    except Unreadable as error:
        raise _Damaged(str(error)) from None
    for key in ("name", "stage", "version"):
        if not isinstance(facts[key], str) or not facts[key].isprintable() or len(facts[key]) > LONGEST_FACT:
            raise _Damaged(f"its {key} is no short text")
    return dict(facts)


def _model(path: Path, facts: Mapping[str, Any]) -> Model:
    try:
        architecture = Architecture.from_dict(facts["architecture"])
        preparation = _preparation(facts)
        if preparation is not None:
            preparation.check_fits(architecture)
    except ArchitectureError as error:
        raise _Damaged(str(error)) from None
    state = read_own_weights(path, architecture)
    return Model(facts["name"], facts["stage"], architecture, preparation, facts["version"], state)


def _preparation(facts: Mapping[str, Any]) -> Preparation | None:
    if "mean" not in facts:
        return None
    mean, std = (tuple(map(float, facts[key])) for key in ("mean", "std"))
    if not all(map(math.isfinite, (*mean, *std))):
        raise ValueError("a mean or deviation is not a finite number")
    return Preparation(mean, std, tuple(map(str, facts["class_names"])))
