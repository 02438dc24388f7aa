"""Runs that were done: what they achieved, and their models."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.architecture import Architecture
from common.errors import CheckpointError, ConfigurationError
from common.models import allow_network
from common.progress import Progress
from common.settings import Scalar
from dac.classifier import Classifier
from dac.model_file import read_model
from feddac.standalone.exporting import Exported, export_models
from server.report.record import Cohort
from server.report.record import read_run as read_record
from server.run_folder import RunFolder
from server.run_models import StoredModel, choose_models, find_models


@dataclass(frozen=True)
class Run:
    """A folder that simulate, train or search made. Everything is read when it is asked for.

    `folder` is its path; `settings` are those it was made with, by the names of the command line's flags.
    """

    folder: Path
    settings: Mapping[str, Any]

    @property
    def finished(self) -> bool:
        """Whether there are models; an interrupted run has none."""
        try:
            return bool(find_models(self.folder))
        except CheckpointError:
            return False

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json says; empty for a search, and for a run that has not finished."""
        folder = RunFolder.open(self.folder)
        return folder.read_summary() if folder.summary_path.exists() else {}

    @property
    def test_accuracy(self) -> float | None:
        """Accuracy on the test images, 0 to 1: of a federated run the mean over its devices; None for a search."""
        return self._figure("test_accuracy")

    @property
    def own_accuracy(self) -> float | None:
        """Mean over devices of their accuracy on images of their own that none of them trained on; None without any."""
        return self._figure("own_accuracy")

    @property
    def cohorts(self) -> tuple[Cohort, ...]:
        """Of a federated run: every cohort's costs, devices, accuracy and bytes moved."""
        return read_record(RunFolder.open(self.folder)).cohorts

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that was recorded, in order: epochs, rounds, evaluations, what became of devices."""
        return RunFolder.open(self.folder).events()

    @cached_property
    def models(self) -> tuple[StoredModel, ...]:
        """The trained models, with whom they are for; raises CheckpointError if there is none yet."""
        return tuple(find_models(self.folder))

    @cached_property
    def architectures(self) -> dict[str, Architecture]:
        """The architecture of every model, by the model's name."""
        return {model.name: read_model(model.path).architecture for model in self.models}

    def _figure(self, name: str) -> float | None:
        found = self.summary.get(name)
        return None if found is None else float(found)

    def load(self, name: str = "") -> Classifier:
        """The model of a cohort, profile or device; see `feddac.load`."""
        return load(self.folder, name)

    def export(self, name: str = "all", out: str | Path | None = None) -> list[Exported]:
        """Write models as ONNX; see `feddac.export`."""
        return export(self.folder, name, out)


def read_run(folder: str | Path) -> Run:
    """The run in a folder; raises CheckpointError if there is none."""
    opened = RunFolder.open(Path(folder))
    return Run(opened.path, opened.read_config())


def load(run: str | Path, name: str = "", *, model: str = "") -> Classifier:
    """A trained model, ready to use: an `nn.Module` that takes raw images, uint8 of shape (N, C, H, W).

    `run` is the folder of a run, or a model file. `name` is that of a cohort, of a profile or of a device; it may be
    left out where there is one model only. `model` is the network that a single file names, where it is not one of
    ours: nothing is imported because a file says so. Raises ConfigurationError for a name that is nobody's or stands
    for several models, CheckpointError where there is no model yet, ArchitectureError for a file that is damaged or of
    a network that may not be built.
    """
    allow_network(model)
    found = choose_models(find_models(Path(run)), name or "all")
    if len(found) > 1:
        names = ", ".join(model.name for model in found)
        raise ConfigurationError(f"{run} has several models{f' for {name}' if name else ''}: name one of {names}")
    return Classifier(read_model(found[0].path))


def export(
    run: str | Path,
    name: str = "all",
    out: str | Path | None = None,
    *,
    model: str = "",
    data: Mapping[str, Scalar] | None = None,
    progress: Progress | None = None,
) -> list[Exported]:
    """Write trained models as ONNX files, float32 and int8, that take raw images; returns what was written.

    `name` is a cohort, profile or device; `out` is the folder for the files (default: the folder `export` of the run);
    `model` is as for `load`; `data` are settings of the data that replace those of the run, written as keywords are:
    {"data": "cifar10", "image_size": 32}. Each float32 file is checked against PyTorch and, on the run's own data, must
    score what the run reports; raises FedDACError where it does not, ConfigurationError for an unknown setting.
    """
    allow_network(model)
    target = None if out is None else Path(out)
    return export_models(Path(run), name, out=target, data=data, progress=progress)
