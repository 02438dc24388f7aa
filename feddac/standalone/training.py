"""Training one architecture without federation, in a run folder: what `feddac train` and `feddac.train` do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.data.images import DataSet
from common.effects import no_effect, require_effect
from common.errors import ConfigurationError
from common.groups import DataSettings, ModelSettings, RunSettings, TrainSettings
from common.initial_weights import fresh
from common.learning import evaluate, pick_accelerator, place
from common.models import allow_network
from common.progress import Progress
from common.seeds import derive_seed
from common.settings import Scalar, keys_of
from dac.files import Member, load_member, save_member
from dac.train import train_architecture
from feddac.resolve import with_absolute_paths
from feddac.standalone.continuing import NETWORK_AND_DATA, keep_settings, require_continuable
from feddac.standalone.material import Material, check_fits, load_material
from feddac.standalone.settings import TRAIN, whole
from server.reference import base_network
from server.run_folder import RunFolder
from server.threads import threads_of

START, TEACHER, TRAINED = "start", "teacher", "trained"
CHECKPOINT = "train.safetensors"

Choose: TypeAlias = Callable[[ModelSettings, Material, int], Member]
"""From the base network's settings, the data and the seed to the architecture to train and its first weights."""


def from_scratch(
    architecture: Architecture | None,
    model: ModelSettings,
    data: DataSet,
    seed: int,
    name: str = "the architecture",
) -> Member:
    """`architecture`, or the whole base network of `model` without one, with random weights of `seed`.

    Raises ArchitectureError, which calls it by `name`, if it is for other images or classes than those of `data`,
    before anything of its size is built.
    """
    if architecture is None:
        architecture = Architecture.full(base_network(model, data))
    check_fits(architecture, data, name)
    state = fresh(architecture, derive_seed(seed, "train-init")).state_dict()
    return Member(architecture, DeviceBudget(), state, 0.0)


def require_no_network(settings: Mapping[str, Any], name: str, written: Callable[[str], str]) -> None:
    """Raise ConfigurationError if kebab-case `settings` say what the architecture called `name` says: its network.

    Only one that is not ours has to be named beside its file, which `require_of` then compares; it has a ':'. `written`
    tells how the user writes a setting.
    """
    named = {"model"} if ":" in str(settings.get("model", "")) else set()
    for key in sorted(keys_of(ModelSettings).intersection(settings) - named):
        raise ConfigurationError(f"{name} says which network it is of: leave out {written(key)}")


def require_of(network: str, architecture: Architecture, name: str, setting: str) -> None:
    """Raise ConfigurationError if `setting` names another network than that of the architecture called `name`.

    An empty `network`, or one of ours, names none.
    """
    model = architecture.base.model
    if ":" in network and network != model:
        raise ConfigurationError(f"{name} says which network it is of, {model}: leave out {setting}")


@dataclass(frozen=True)
class TrainJob:
    """A training that is ready to begin or to go on: `run` does it, and keeps all in `folder`."""

    folder: RunFolder
    settings: Mapping[str, Scalar]
    start: Member
    teacher: Member | None
    recipe: TrainSettings
    seed: int
    material: Material
    accelerator: torch.device

    def run(self, progress: Progress) -> None:
        """Train to the last epoch, then test once; ends with the same weights if it was cut short and resumed."""
        start, guide, material, accelerator = self.start, self.teacher, self.material, self.accelerator
        with self.folder as folder, threads_of(folder):
            keep_settings(folder, self.settings)
            trained = train_architecture(
                start.architecture,
                start.state,
                material.train,
                material.validation,
                self.recipe,
                seed=self.seed,
                accelerator=accelerator,
                progress=progress,
                checkpoint=folder.checkpoint_folder / CHECKPOINT,
                record=folder.epoch_recorder("train"),
                teacher=None if guide is None else guide.architecture.build_from(guide.state),
            )
            module = place(start.architecture.build_from(trained.state), accelerator)
            test = evaluate(module, material.test, accelerator)
            accuracy = trained.validation_accuracy
            result = replace(start, state=trained.state, validation_accuracy=accuracy, parent=None)
            _save(folder.architecture_path(TRAINED), result, TRAINED, material, self.seed)
            folder.write_summary({"validation_accuracy": accuracy, "test_accuracy": test.accuracy})


def prepare_training(
    given: Mapping[str, Any],
    choose: Choose,
    teacher: Path | None,
    progress: Progress,
    resume: Path | None = None,
    what: str = "the architecture",
) -> TrainJob:
    """The training of what `choose` returns, taught by the network of the file `teacher`, with its run folder.

    `given` are kebab-case settings of TRAIN. With `resume` it is the training of that folder, and `choose` and
    `teacher` are not asked. `what` names the architecture in errors. Mistakes are raised before anything is written;
    one is a CheckpointError for settings with which that training cannot go on.
    """
    folder = None if resume is None else RunFolder.open(resume)
    data, model = DataSettings.picked_from(given), ModelSettings.picked_from(given)
    recipe, run = TrainSettings.picked_from(given), RunSettings.picked_from(given)
    data = with_absolute_paths(Config(data=data)).data
    settings = whole({**given, **data.to_mapping()}, TRAIN)
    if folder is None:
        guided, changed = teacher is not None, frozenset(settings)
        require_effect(Config.from_mapping({**data.to_mapping(), **model.to_mapping()}))
    else:  # what an earlier FedDAC began with may have no effect in this one
        guided = (folder.checkpoint_folder / f"{TEACHER}.json").exists()
        fixed = NETWORK_AND_DATA | {"seed"}  # by which the first weights were drawn
        changed = require_continuable(folder, settings, TRAIN, folder.checkpoint_folder / CHECKPOINT, fixed)
    if not guided and "distillation" in changed and recipe.distillation != TrainSettings().distillation:
        raise ConfigurationError(no_effect("distillation", str(recipe.distillation), "without --teacher"))
    allow_network(model.model)
    accelerator = pick_accelerator(run.accelerator)
    progress.start("data", 1)
    material = load_material(data, recipe.batch_size, run.seed)
    progress.finish("data", f"{material.data.name}: {len(material.data.train)} training images")
    if folder is None:
        start = choose(model, material, run.seed)
        guide = None if teacher is None else load_member(teacher)
    else:
        start = load_member(folder.checkpoint_folder / f"{START}.json")
        guide = load_member(folder.checkpoint_folder / f"{TEACHER}.json") if guided else None
    check_fits(start.architecture, material.data, what)
    if guide is not None:
        check_fits(guide.architecture, material.data, str(teacher or resume))
    if folder is None:
        folder = RunFolder.create(run.out)
        for stage, member in ((START, start), (TEACHER, guide)):
            if member is not None:
                _save(folder.checkpoint_folder / f"{stage}.json", member, stage, material, run.seed)
        folder.write_config(settings)
    return TrainJob(folder, settings, start, guide, recipe, run.seed, material, accelerator)


def _save(path: Path, member: Member, stage: str, material: Material, seed: int) -> None:
    save_member(path, member, name=stage, parent=None, seed=seed, stage=stage, preparation=material.preparation)
