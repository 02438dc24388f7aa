"""The weights that cohorts start from: slices of one network, so that they agree wherever their channels overlap."""

from dataclasses import replace

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config, TrainSettings
from common.layout import State
from common.learning import evaluate, place, recalibrate
from common.progress import Progress, Silent
from common.seeds import derive_seed
from common.slicing import slice_state, state_of
from dac.files import Member
from dac.train import train_architecture
from server.reference import Reference
from server.run_folder import RunFolder


def random_state(architecture: Architecture, seed: int) -> State:
    """The architecture's slice of its base network's random initial weights, which only the run's seed decides."""
    full = Architecture.full(architecture.base)
    return slice_state(full.build(derive_seed(seed, "initial-weights")).state_dict(), full, architecture)


def starting_state(
    architecture: Architecture,
    reference: Reference,
    config: Config,
    folder: RunFolder,
    accelerator: torch.device,
    progress: Progress,
) -> State:
    """Random weights, trained on the reference set for `pretraining-epochs` unless initial-weights = random.

    The recipe is `dac.train` with the learning rate, momentum and weight decay of the search. A training that was cut
    short goes on from the checkpoint in `folder` and ends with the same weights.
    """
    state = random_state(architecture, config.run.seed)
    if pretraining_epochs(config) == 0:
        return state
    settings = _recipe(config, pretraining_epochs(config))
    return train_architecture(
        architecture,
        state,
        reference.train,
        reference.validation,
        settings,
        seed=config.run.seed,
        accelerator=accelerator,
        progress=progress,
        checkpoint=folder.checkpoint_folder / "pretraining.safetensors",
        record=folder.epoch_recorder("pretraining"),
    ).state


def pretraining_epochs(config: Config) -> int:
    """Epochs that `starting_state` trains."""
    return config.method.pretraining_epochs if config.federation.initial_weights == "inherited" else 0


def starting_member(
    architecture: Architecture,
    budget: DeviceBudget,
    trained: tuple[Architecture, State],
    reference: Reference,
    config: Config,
    accelerator: torch.device,
) -> Member:
    """The slice of a `trained` network that `architecture` is, fine-tuned as an architecture of the search would be.

    Its batch norms are measured anew on the reference set: statistics of the whole network's activations are not those
    of a slice's. With random initial weights, and where the slice is the whole, nothing is fine-tuned.
    """
    larger, state = trained
    own = slice_state(state, larger, architecture)
    pretrained = pretraining_epochs(config) > 0
    if pretrained and architecture != larger:
        settings = _recipe(config, config.search.fine_tune_epochs)
        seed = derive_seed(config.run.seed, "fine-tuning")
        own = train_architecture(
            architecture,
            own,
            reference.train,
            reference.validation,
            settings,
            seed=seed,
            accelerator=accelerator,
            progress=Silent(),
        ).state
    module = place(architecture.build_from(own), accelerator)
    if pretrained:
        recalibrate(module, replace(reference.train, batch_size=config.federation.test_batch_size), accelerator)
    accuracy = evaluate(module, reference.validation, accelerator).accuracy
    return Member(architecture, budget, state_of(module), accuracy)


def _recipe(config: Config, epochs: int) -> TrainSettings:
    search = config.search
    return TrainSettings(
        epochs=epochs,
        batch_size=search.search_batch_size,
        learning_rate=search.search_learning_rate,
        momentum=search.search_momentum,
        weight_decay=search.search_weight_decay,
        label_smoothing=0.0,
    )
