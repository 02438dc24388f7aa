"""Local training: some epochs of stochastic gradient descent on this device's images (McMahan et al. 2017, FedAvg)."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn

from client.masked_loss import mask_for
from client.models import module_for
from client.steps import Here, Work
from common.errors import FederationError
from common.learning import CrossEntropy, Feed, Loss, train_epoch
from common.messages import WEIGHTS, Task
from common.methods.training import TrainingOrder


def train_step(task: Task, here: Here) -> Work:
    """The step of methods that ask for nothing but local training: weights in, weights out."""
    return train(module_for(task, here.accelerator), task, task.order_as(TrainingOrder), here)


def train(
    module: nn.Module,
    task: Task,
    order: TrainingOrder,
    here: Here,
    penalty: Callable[[], torch.Tensor] | None = None,
) -> Work:
    """The module's weights after `order.epochs` epochs with a fresh optimizer; the loss is the last epoch's mean.

    `penalty`, a scalar, is added to the loss. Raises FederationError if training diverges or misses its deadline.
    """
    loss = CrossEntropy(mask=mask_for(here.images.labels, task.network.classes, order.masked_loss), penalty=penalty)
    feed = Feed(here.images, here.preprocessor, order.batch_size)
    return run_epochs(module, task, order, here, feed, descent(module.parameters(), order), loss)


def descent(parameters: Iterable[nn.Parameter], order: TrainingOrder) -> torch.optim.SGD:
    """A fresh optimizer as the order has it."""
    return torch.optim.SGD(parameters, lr=order.learning_rate, momentum=order.momentum, weight_decay=order.weight_decay)


def run_epochs(
    module: nn.Module,
    task: Task,
    order: TrainingOrder,
    here: Here,
    feed: Feed,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    before_epoch: Callable[[int], object] | None = None,
) -> Work:
    """The module's weights after `order.epochs` epochs over `feed`; gradients of what `optimizer` moves are clipped.

    `before_epoch` is told the number of each, from 1. Raises FederationError as `train` does.
    """
    shorten = None
    if order.max_gradient_norm > 0:
        moved = [one for group in optimizer.param_groups for one in group["params"]]
        shorten = partial(nn.utils.clip_grad_norm_, moved, order.max_gradient_norm)
    for epoch in range(1, order.epochs + 1):
        if before_epoch is not None:
            before_epoch(epoch)
        mean = train_epoch(
            module,
            feed,
            optimizer,
            here.generator,
            here.accelerator,
            loss,
            before_step=shorten,
            frozen_norms=order.frozen_norms,
        ).loss
        if not math.isfinite(mean):
            raise FederationError(f"training diverged in epoch {epoch} (loss {mean}); use a lower learning-rate")
        here.check_deadline()
    return Work({WEIGHTS: task.network.layout.flatten(module.state_dict())}, mean)
