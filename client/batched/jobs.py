"""Which steps can be done for several devices at once, and what is particular to each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from client.methods import autoflip, fedprox, heterofl
from client.steps import Step, Work
from client.training import train_step
from common.arrays import Vector
from common.messages import WEIGHTS, Task
from common.methods.autoflip import MASK, VALUES
from common.methods.fedprox import ProximalOrder
from common.methods.heterofl import ScaledOrder
from common.methods.training import TrainingOrder
from common.sparse import spread, unpacked

Row: TypeAlias = torch.Tensor  # the parameters of one device one after the other, or as much of anything else
Adjust: TypeAlias = Callable[[Row, Row], object]


def _nothing(gradient: Row, parameters: Row) -> None:
    """The gradient of the loss is all there is."""


@dataclass(frozen=True)
class Job:
    """A device's training: the weights it starts from, how it trains, and what it answers.

    `adjusted` makes, from a function that brings a flat vector of weights into a row's order, what changes a gradient
    in place, given the parameters, before it is clipped. `answer` is of the trained weights and the last epoch's loss.
    """

    weights: Vector
    order: TrainingOrder
    answer: Callable[[Vector, float], Work]
    adjusted: Callable[[Callable[[Vector], Row]], Adjust] = lambda row: _nothing
    activation_scale: float = 1.0


def plain(task: Task) -> Job:
    """`client.training.train_step`."""
    return Job(task.weights, task.order_as(TrainingOrder), _all_weights)


def proximal(task: Task) -> Job:
    """`client.methods.fedprox`: the gradient of mu / 2 times the squared distance is mu times the way so far."""
    order = task.order_as(ProximalOrder)

    def adjusted(row: Callable[[Vector], Row]) -> Adjust:
        sent = row(task.weights)
        return lambda gradient, now: gradient.add_(now - sent, alpha=order.proximal_coefficient)

    return Job(task.weights, order, _all_weights, adjusted)


def scaled(task: Task) -> Job:
    """`client.methods.heterofl`."""
    order = task.order_as(ScaledOrder)
    return Job(task.weights, order, _all_weights, activation_scale=order.activation_scale)


def sparse(task: Task) -> Job:
    """`client.methods.autoflip`: gradients of weights that are not kept are zero."""
    kept = unpacked(task.array(MASK), task.network.layout.size)

    def adjusted(row: Callable[[Vector], Row]) -> Adjust:
        mask = row(kept.astype(np.float32))
        return lambda gradient, now: gradient.mul_(mask)

    def answer(weights: Vector, loss: float) -> Work:
        return Work({VALUES: weights[kept]}, loss)

    return Job(spread(task.array(VALUES), kept), task.order_as(TrainingOrder), answer, adjusted)


def _all_weights(weights: Vector, loss: float) -> Work:
    return Work({WEIGHTS: weights}, loss)


JOBS: Mapping[Step, Callable[[Task], Job]] = {
    train_step: plain,
    fedprox.train_step: proximal,
    heterofl.train_step: scaled,
    autoflip.sparse_step: sparse,
}
"""What stands in for a device's step when several devices do it together."""
