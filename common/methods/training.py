"""Local training, which most methods ask of their devices: the order that travels, and the weights that come back."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from common.arrays import ArraySpec, Vector, norm_of
from common.budget import OPTIMIZERS
from common.methods.contract import Contract, Limits
from common.settings import Settings, setting

if TYPE_CHECKING:
    from common.layout import Layout

Bound: TypeAlias = float | Vector

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


def weights_spec(
    layout: "Layout", sent: Vector, noise: float = 0.0, limits: Limits = Contract.weight_limits
) -> ArraySpec:
    """What weights that come back must be, given those that were `sent`: finite, of sane size, within the `limits`.

    `noise` is by how much their norm may be larger than training makes it, which the run itself has devices add.
    `limits` are those of the method's contract.
    """
    low, high = weight_bounds(layout, limits)
    largest_norm = NORM_FACTOR * max(1.0, norm_of(sent)) + noise
    return ArraySpec("<f4", (layout.size,), low, high, largest_norm)


def weight_bounds(layout: "Layout", limits: Limits) -> tuple[Bound, Bound]:
    """The lowest and the highest values of weights, shape (size,); infinite numbers where no tensor has a limit."""
    return _bounds(layout, tuple(limits.items()))


@lru_cache(maxsize=64)
def _bounds(layout: "Layout", limits: tuple[tuple[str, tuple[float, float]], ...]) -> tuple[Bound, Bound]:
    known = dict(limits)
    found = [known.get(name.rpartition(".")[2], (-math.inf, math.inf)) for name in layout.names]
    sizes = [math.prod(shape) for shape in layout.shapes]
    low, high = (np.repeat(np.asarray(side, np.float32), sizes) for side in zip(*found, strict=True))
    return low if (low > -math.inf).any() else -math.inf, high if (high < math.inf).any() else math.inf
