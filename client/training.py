"""Local training: some epochs of SGD or Adam on this device's images (McMahan et al. 2017, FedAvg)."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import nn

from client.masked_loss import mask_for
from client.models import module_for
from client.steps import Here, Work
from common.data.images import Images
from common.errors import FederationError
from common.learning import CrossEntropy, Feed, Loss, shorten_gradient, train_epoch
from common.messages import WEIGHTS, Task
from common.methods.training import TrainingOrder
from common.optimizers import make_optimizer


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

    `penalty` and errors are those of `training_epochs`.
    """
    losses = list(training_epochs(module, task, order, here, penalty))
    return Work({WEIGHTS: task.network.layout.flatten(module.state_dict())}, losses[-1])


def training_epochs(
    module: nn.Module,
    task: Task,
    order: TrainingOrder,
    here: Here,
    penalty: Callable[[], torch.Tensor] | None = None,
    loss_of: Loss | None = None,
    *,
    moved: Iterable[nn.Parameter] | None = None,
    images: Images | None = None,
    rate: Callable[[int], float] | None = None,
) -> Iterator[float]:
    """Train the module for up to `order.epochs` epochs, and yield the mean loss of each when it is over.

    `penalty`, a scalar, is added to the loss, unless `loss_of` stands in for all of it. Only the parameters `moved` are
    stepped and their gradients clipped, on `images`; all of either where they are not given. `rate` gives the learning
    rate of each epoch, from 1, in place of the order's. Raises FederationError if training diverges or misses its
    deadline.
    """
    parameters = list(module.parameters() if moved is None else moved)
    optimizer = make_optimizer(order.optimizer, parameters, order.learning_rate, order.momentum, order.weight_decay)
    if loss_of is None:
        mask = mask_for(here.images.labels, task.network.classes, order.masked_loss)
        loss_of = CrossEntropy(mask=mask, penalty=penalty)
    feed = Feed(here.images if images is None else images, here.preprocessor, order.batch_size)
    for epoch in range(1, order.epochs + 1):
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate(epoch)
        loss = train_epoch(
            module,
            feed,
            optimizer,
            here.generator,
            here.accelerator,
            loss_of,
            before_step=partial(shorten_gradient, parameters, order.max_gradient_norm),
            frozen_norms=order.frozen_norms,
        ).loss
        if not math.isfinite(loss):
            raise diverged(epoch, loss)
        here.check_deadline()
        yield loss


def diverged(epoch: int, loss: float) -> FederationError:
    """The error of a training whose mean loss of an epoch is not finite."""
    return FederationError(f"training diverged in epoch {epoch} (loss {loss}); use a lower learning-rate")
