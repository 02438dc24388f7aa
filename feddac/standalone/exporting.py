"""Trained models as files for devices: written, checked against PyTorch and against the run's own result, measured."""

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from common.data.function import allow
from common.data.images import DataSet, Images
from common.data.sources import load
from common.data.split import split_reference
from common.errors import ArchitectureError, ConfigurationError, DataError, FedDACError
from common.groups import DataSettings
from common.progress import Progress, Silent
from common.seeds import torch_generator
from common.settings import Scalar, check_known, key_of
from common.version import version
from dac import export as onnx
from dac.classifier import Classifier
from dac.model_file import read_model
from server.json_files import write_json
from server.run_folder import RunFolder
from server.run_models import StoredModel, choose_models, find_models

CHECKED_IMAGES = 256
"""Images that a file is compared with PyTorch on, and that calibrate its int8 version."""

NOTABLE_LOSS = 0.02
"""An int8 version that loses more accuracy than this is said to."""


@dataclass(frozen=True)
class ExportedFile:
    """One ONNX file: its size, how it did on `test_images` images (None without any), and one image's time.

    `latency_ms` is the median on one thread of this machine.
    """

    path: Path
    precision: str
    bytes: int
    latency_ms: float
    correct: int | None
    test_images: int

    @property
    def accuracy(self) -> float | None:
        """The share of the test images that it classifies correctly."""
        return None if self.correct is None else self.correct / self.test_images


@dataclass(frozen=True)
class Exported:
    """A model that was exported: its float32 file, its int8 file where there were images, and the facts beside them."""

    model: StoredModel
    float32: ExportedFile
    int8: ExportedFile | None
    facts: Path
    difference: float
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Trial:
    """The raw images that files are tested on and calibrated with; `is_the_runs` where its result is from those."""

    test: Images
    calibration: torch.Tensor
    class_names: tuple[str, ...]
    name: str
    is_the_runs: bool


def export_models(
    place: Path,
    wanted: str = "all",
    *,
    kind: str = "",
    out: Path | None = None,
    data: Mapping[str, Scalar] | None = None,
    progress: Progress | None = None,
) -> list[Exported]:
    """Write the models of `place` that answer to `wanted` (see `server.run_models`) as ONNX, float32 and int8.

    The files go into `out`, or into the folder `export` of the run, beside a JSON file of facts about each. They are
    tested on the test images of the run's own data set, and then must score what the run reports, or on others that
    `data`, settings of DataSettings such as {"data": "cifar10"}, name. Without images there is no accuracy and no int8
    version, and a note that says why.

    Raises FedDACError where a file differs from PyTorch or scores something else than the run, ConfigurationError where
    a name or a package is missing or a setting is none of the data's, and DataError for `data` that cannot be had.
    """
    given = {key_of(name): value for name, value in (data or {}).items()}
    check_known(given, DataSettings.keys())
    onnx.require("onnx")
    onnx.require("onnxscript")
    onnx.require("onnxruntime")
    chosen = choose_models(find_models(place), wanted, kind)
    trial, reason = _trial(place, given)
    target = out or (place if place.is_dir() else place.parent) / "export"
    progress = progress or Silent()
    progress.start("export", len(chosen))
    exported = []
    for model in chosen:
        progress.advance("export", 0, f"exporting {model.name}")
        asked_by_name = len(chosen) == 1 and wanted != "all"
        exported.append(_export(model, _file_name(wanted if asked_by_name else model.name), target, trial, reason))
        progress.advance("export", 1, f"exported {model.name}")
    progress.finish("export", f"{len(exported)} in {target}")
    return exported


def _export(model: StoredModel, name: str, out: Path, trial: _Trial | None, reason: str) -> Exported:
    """The files take the place of earlier ones when all of them have passed their checks."""
    classifier = Classifier(read_model(model.path))
    if trial is not None:
        _check_fits(classifier, trial)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        made = _make(model, classifier, name, Path(folder), trial, reason)
        int8 = None if made.int8 is None else _moved(made.int8, out)
        facts = made.facts.replace(out / made.facts.name)
        return replace(made, float32=_moved(made.float32, out), int8=int8, facts=facts)


def _moved(file: ExportedFile, folder: Path) -> ExportedFile:
    return replace(file, path=file.path.replace(folder / file.path.name))


def _make(
    model: StoredModel, classifier: Classifier, name: str, out: Path, trial: _Trial | None, reason: str
) -> Exported:
    """Write the files, check and measure them; raises FedDACError for one that fails."""
    shape = classifier.architecture.base.input_shape
    network = onnx.network_program(classifier)
    path, small_path = out / f"{name}.onnx", out / f"{name}.int8.onnx"
    onnx.export_onnx(classifier, path, network)
    difference = onnx.check(path, classifier, _check_images(shape))
    if trial is not None:
        difference = max(difference, onnx.check(path, classifier, trial.test.images[:CHECKED_IMAGES]))
    plain, notes, small = _measure(path, "float32", shape, trial), [], None
    if trial is None:
        notes.append(f"not tested, and no int8 version: {reason}")
    else:
        if trial.is_the_runs:
            _require_reported(model, plain, trial)
        onnx.export_int8(classifier, small_path, trial.calibration, network)
        small = _measure(small_path, "int8", shape, trial)
        lost = ((plain.correct or 0) - (small.correct or 0)) / small.test_images
        if lost > NOTABLE_LOSS:
            notes.append(f"{small_path.name} loses {100 * lost:.1f} points of accuracy")
    facts = out / f"{name}.json"
    exported = Exported(model, plain, small, facts, difference, tuple(notes))
    write_json(facts, _facts(exported, classifier, trial))
    return exported


def _measure(path: Path, precision: str, shape: tuple[int, int, int], trial: _Trial | None) -> ExportedFile:
    right = None if trial is None else onnx.correct(path, trial.test)
    count = 0 if trial is None else len(trial.test)
    return ExportedFile(path, precision, path.stat().st_size, onnx.latency_ms(path, shape), right, count)


def _require_reported(model: StoredModel, plain: ExportedFile, trial: _Trial) -> None:
    """Raise FedDACError where the file is further than one image from what the run says of its model."""
    said, found = model.reported_accuracy, plain.accuracy
    if said is None or found is None or abs(found - said) * plain.test_images <= 1.001:
        return
    raise FedDACError(
        f"{plain.path.name} classifies {found:.2%} of {trial.name} correctly where the run says {said:.2%}; if the "
        "images have changed since, name those to test on with --data"
    )


def _facts(exported: Exported, classifier: Classifier, trial: _Trial | None) -> dict[str, Any]:
    """What is written beside the files."""
    model, costs = exported.model, classifier.architecture.costs
    files = [exported.float32] + ([] if exported.int8 is None else [exported.int8])
    channels, height, width = classifier.architecture.base.input_shape
    return {
        "name": model.name,
        "stage": classifier.stage,
        "devices": model.devices,
        "profiles": model.profiles,
        "input": f"images: uint8, (N, {channels}, H, W), raw; resized to cover {height} x {width} and cropped inside",
        "output": f"logits: float32, (N, {len(classifier.class_names)})",
        "class_names": classifier.class_names,
        "macs": costs.macs,
        "params": costs.params,
        "peak_memory_bytes": costs.peak_memory_bytes,
        "reported_accuracy": model.reported_accuracy,
        "test_data": None if trial is None else trial.name,
        "difference_to_pytorch": exported.difference,
        "files": [
            {
                **asdict(one),
                "path": one.path.name,
                "accuracy": one.accuracy,
                "sha256": hashlib.sha256(one.path.read_bytes()).hexdigest(),
            }
            for one in files
        ],
        "latency_measured_on": f"one thread of {onnx.processor()}",
        "notes": exported.notes,
        "versions": {"feddac": version(), "torch": torch.__version__, **_versions("onnx", "onnxruntime")},
    }


def _versions(*packages: str) -> dict[str, str]:
    return {name: str(onnx.require(name).__version__) for name in packages}


def _trial(place: Path, given: Mapping[str, Scalar]) -> tuple[_Trial | None, str]:
    """The images to test on and "", or None and why there are none; only images that were asked for must be there."""
    config = RunFolder.open(place).read_config() if place.is_dir() else {}
    config = {**config, **given}
    if not config.get("data"):
        return None, "a file does not say what it was trained on: name images with --data"
    settings = DataSettings.picked_from(config)
    allow(settings.data)  # a function that the user named, now or, as the network, when the run began
    try:
        loaded = load(settings)
    except DataError as error:
        if given:
            raise
        return None, f"{error}"
    own = not set(given) - {"data-folder"}
    return _Trial(loaded.test, _calibration(loaded, config), loaded.class_names, loaded.name, own), ""


def _calibration(data: DataSet, config: Mapping[str, Any]) -> torch.Tensor:
    """Raw training images, of a federated run those that the server has; at random, as sets may be sorted by class."""
    images = data.train.images
    if "reference-fraction" in config:
        images = images[split_reference(data, DataSettings.picked_from(config), int(config["seed"])).reference_train]
    chosen = torch.randperm(len(images), generator=torch_generator(0, "calibration"))[:CHECKED_IMAGES]
    return images[chosen]


def _check_images(shape: tuple[int, int, int]) -> torch.Tensor:
    """Noise that is neither of the network's size nor of its proportions."""
    channels, height, width = shape
    size = (8, channels, height + 3, 2 * width + 1)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch_generator(0, "export"))


def _check_fits(classifier: Classifier, trial: _Trial) -> None:
    if classifier.class_names != trial.class_names:
        raise ArchitectureError(
            f"{classifier.name} tells {_some(classifier.class_names)}, but the classes of {trial.name} are "
            f"{_some(trial.class_names)}; test it on the data that it was trained for"
        )
    channels = classifier.architecture.base.input_shape[0]
    if trial.test.images.shape[1] != channels:
        raise ArchitectureError(f"{classifier.name} takes {channels} channels, and {trial.name} has others")


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _file_name(name: str) -> str:
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", name).strip("-._")
    if not clean:
        raise ConfigurationError(f"{name!r} cannot name a file")
    return clean
