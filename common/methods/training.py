"""Local training, which most methods ask of their devices: the order that travels, and the weights that come back."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from common.arrays import ArraySpec, Vector, norm_of
from common.budget import OPTIMIZERS
from common.settings import Settings, setting

if TYPE_CHECKING:
    from common.layout import Layout

TRAIN = "train"
"""The step's name."""

PASSES = 3
"""A training step counts three forward passes: forward, gradient of the activations, gradient of the weights."""

NORM_FACTOR = 1000.0
"""A model whose Euclidean norm grew by more than this in one round is not the result of training."""


@dataclass(frozen=True)
class TrainingOrder(Settings):
    """How a device trains the network it was sent."""

    epochs: int = setting(1, "Passes over the device's images.", minimum=1)
    batch_size: int = setting(32, "Batch size.", minimum=1)
    optimizer: str = setting("sgd", "How weights are updated.", choices=tuple(OPTIMIZERS))
    learning_rate: float = setting(0.01, "Learning rate.", minimum=0.0)
    momentum: float = setting(0.0, "Momentum; of adam and amsgrad beta 1.", minimum=0.0, maximum=0.999)
    weight_decay: float = setting(0.0, "Weight decay.", minimum=0.0)
    max_gradient_norm: float = setting(0.0, "L2 norm a step's gradient is scaled down to; 0 does not.", minimum=0.0)
    masked_loss: str = setting(
        "none", "What is done about classes without an image.", choices=("none", "exclude", "zero")
    )
    frozen_norms: bool = setting(False, "Batch norms use the running statistics they came with.")


def weights_spec(layout: "Layout", sent: Vector, noise: float = 0.0) -> ArraySpec:
    """What weights that come back must be, given those that were `sent`: finite, sane, and no variance negative.

    `noise` is by how much their norm may be larger than training makes it, which the run itself has devices add.
    """
    largest_norm = NORM_FACTOR * max(1.0, norm_of(sent)) + noise
    return ArraySpec("<f4", (layout.size,), low=_lowest(layout), largest_norm=largest_norm)


@lru_cache(maxsize=64)
def _lowest(layout: "Layout") -> Vector:
    """Shape (size,): 0 for running variances, else minus infinity."""
    lows = [0.0 if name.endswith("running_var") else -np.inf for name in layout.names]
    return np.repeat(np.asarray(lows, np.float32), [int(np.prod(shape)) for shape in layout.shapes])
