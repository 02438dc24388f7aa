"""How models begin that no search found: slices of one network, trained on the reference set as the search trains.

So they agree wherever their channels overlap.
"""

from dataclasses import replace

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.groups import TrainSettings
from common.initial_weights import fresh
from common.layout import State
from common.learning import evaluate, place, recalibrate
from common.progress import Silent
from common.seeds import derive_seed
from common.slicing import slice_state, state_of
from dac.files import Member
from dac.recipe import RECIPES, fine_tuning
from dac.train import train_architecture
from server.run import Run


def random_state(architecture: Architecture, seed: int, recipe: str = "default") -> State:
    """The architecture's slice of its base network's random initial weights, which only the run's seed decides.

    Residual blocks begin as they do in a search by the `recipe`.
    """
    full, zero = Architecture.full(architecture.base), RECIPES[recipe].zero_init_residual
    module = fresh(full, derive_seed(seed, "initial-weights"), zero_init_residual=zero)
    return slice_state(module.state_dict(), full, architecture)


def starting_state(architecture: Architecture, run: Run) -> State:
    """Random weights, trained on the reference set for `pretraining-epochs` unless initial-weights = random.

    The recipe is `dac.train` with the learning rate, momentum and weight decay of the search. A training that was cut
    short goes on from the checkpoint in the run folder and ends with the same weights.
    """
    state = random_state(architecture, run.seed, run.config.search.recipe)
    if pretraining_epochs(run.config) == 0:
        return state
    return train_architecture(
        architecture,
        state,
        run.reference.train,
        run.reference.validation,
        _recipe(run.config),
        seed=run.seed,
        accelerator=run.accelerator,
        progress=run.progress,
        checkpoint=run.folder.checkpoint_folder / "pretraining.safetensors",
        record=run.folder.epoch_recorder("pretraining"),
    ).state


def pretraining_epochs(config: Config) -> int:
    """Epochs that `starting_state` trains."""
    return config.method.pretraining_epochs if config.federation.initial_weights == "inherited" else 0


def starting_member(
    architecture: Architecture, budget: DeviceBudget, trained: tuple[Architecture, State], run: Run
) -> Member:
    """The slice of a `trained` network that `architecture` is, fine-tuned as an architecture of the search would be.

    So it learns the whole network's answers, where the recipe has the search's architectures do so.

    Its batch norms are measured anew on the reference set: statistics of the whole network's activations are not those
    of a slice's. With random initial weights, and where the slice is the whole, nothing is fine-tuned.
    """
    config, reference = run.config, run.reference
    larger, state = trained
    own = slice_state(state, larger, architecture)
    pretrained = pretraining_epochs(config) > 0
    if pretrained and architecture != larger:
        own = train_architecture(
            architecture,
            own,
            reference.train,
            reference.validation,
            fine_tuning(config.search),
            seed=derive_seed(run.seed, "fine-tuning"),
            accelerator=run.accelerator,
            progress=Silent(),
            teacher=larger.build_from(state) if _teaches(config) else None,
        ).state
    module = place(architecture.build_from(own), run.accelerator)
    if pretrained:
        feed = replace(reference.train, batch_size=config.federation.test_batch_size)
        recalibrate(module, feed, run.accelerator)
    accuracy = evaluate(module, reference.validation, run.accelerator).accuracy
    return Member(architecture, budget, state_of(module), accuracy)


def _teaches(config: Config) -> bool:
    return RECIPES[config.search.recipe].distillation > 0


def _recipe(config: Config) -> TrainSettings:
    search = config.search
    return TrainSettings(
        epochs=pretraining_epochs(config),
        batch_size=search.search_batch_size,
        learning_rate=search.search_learning_rate,
        momentum=search.search_momentum,
        weight_decay=search.search_weight_decay,
        max_gradient_norm=RECIPES[search.recipe].max_gradient_norm,
        label_smoothing=0.0,
    )
