"""Local training: some epochs of stochastic gradient descent on this device's images (McMahan et al. 2017, FedAvg)."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from client.masked_loss import mask_for
from client.models import module_for
from client.steps import Here, Work
from common.errors import FederationError
from common.learning import CrossEntropy, Feed, train_epoch
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
    optimizer = torch.optim.SGD(
        module.parameters(), lr=order.learning_rate, momentum=order.momentum, weight_decay=order.weight_decay
    )
    shorten = None
    if order.max_gradient_norm > 0:
        shorten = partial(nn.utils.clip_grad_norm_, list(module.parameters()), order.max_gradient_norm)
    mask = mask_for(here.images.labels, task.network.classes, order.masked_loss)
    feed = Feed(here.images, here.preprocessor, order.batch_size)
    for epoch in range(1, order.epochs + 1):
        loss = train_epoch(
            module,
            feed,
            optimizer,
            here.generator,
            here.accelerator,
            CrossEntropy(mask=mask, penalty=penalty),
            before_step=shorten,
            frozen_norms=order.frozen_norms,
        ).loss
        if not math.isfinite(loss):
            raise FederationError(f"training diverged in epoch {epoch} (loss {loss}); use a lower learning-rate")
        here.check_deadline()
    return Work({WEIGHTS: task.network.layout.flatten(module.state_dict())}, loss)
