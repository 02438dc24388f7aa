"""The search recipes: what the paper published, what we ship, and plain scaling to compare them with."""

from dataclasses import dataclass

from common.groups import SearchSettings, TrainSettings


@dataclass(frozen=True)
class Recipe:
    """How gates are placed, trained and turned into an order of removal.

    `gate_position` is before-depthwise, after-depthwise or none; `importance` is gate (its size), saliency (the squared
    first-order change of the loss, see `dac.gates`) or uniform, which asks no channel and narrows every group alike
    (`dac.scaling.uniform`); channels whose gate is at most `threshold` go first. With `zero_init_residual` residual
    blocks begin as the identity (`common.initial_weights`). A step's gradient that is longer than `max_gradient_norm`
    (L2) is scaled down to it, unless that is 0. Found architectures are fine-tuned with the unshrunk network as
    teacher, whose answers have the share `distillation` of the loss.
    """

    gate_position: str
    entropy: str
    bound_coefficient: float
    gate_weight_decay: float
    importance: str
    distillation: float
    zero_init_residual: bool = True
    max_gradient_norm: float = 1.0
    threshold: float = 0.1


RECIPES = {
    "default": Recipe(
        gate_position="after-depthwise",
        entropy="normalised",
        bound_coefficient=0.01,
        gate_weight_decay=0.0,
        importance="saliency",
        distillation=0.7,
    ),
    # A gate before the depthwise convolution is undone by that channel's own batch norm, so cross-entropy gives it
    # almost no gradient and weight decay alone shrinks it; kept because it is what was published.
    "paper": Recipe(
        gate_position="before-depthwise",
        entropy="paper",
        bound_coefficient=0.01,
        gate_weight_decay=5e-4,
        importance="gate",
        distillation=0.0,
        zero_init_residual=False,
        max_gradient_norm=0.0,
    ),
    "uniform": Recipe(
        gate_position="none",
        entropy="normalised",
        bound_coefficient=0.0,
        gate_weight_decay=0.0,
        importance="uniform",
        distillation=0.7,
    ),
}


def fine_tuning(settings: SearchSettings) -> TrainSettings:
    """How what a search found is trained to the end: `dac.train` with the search's own rate, momentum and decay."""
    recipe = RECIPES[settings.recipe]
    return TrainSettings(
        epochs=settings.fine_tune_epochs,
        batch_size=settings.search_batch_size,
        learning_rate=settings.search_learning_rate,
        warmup_share=0.0,
        momentum=settings.search_momentum,
        nesterov=False,
        max_gradient_norm=recipe.max_gradient_norm,
        weight_decay=settings.search_weight_decay,
        label_smoothing=0.0,
        distillation=recipe.distillation,
    )
