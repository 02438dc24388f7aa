"""FedNAS on a device: alternate steps of architecture and weights, then train what was found.

The search is MiLeNAS, first order (He et al. 2020, arXiv:2003.12238, equation 7): the architecture parameters follow
the gradient of the validation loss plus lambda times that of the training loss. FedNAS's algorithm 1 has a coefficient
on both.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from client.masked_loss import mask_for
from client.models import module_for
from client.steps import Here, Work
from client.training import training_epochs
from common.data.images import Images
from common.data.split import split_stratified
from common.errors import DataError, MessageError
from common.learning import Answer, Batch, CrossEntropy, Feed, Loss
from common.messages import WEIGHTS, Task
from common.methods.fednas import ALPHAS, SEARCH, CellOrder
from common.methods.training import TRAIN
from common.models.darts import CellNetwork
from common.optimizers import Adam
from common.seeds import torch_generator

BETAS = (0.5, 0.999)
"""Of Adam on the architecture parameters (DARTS, appendix A.1.1)."""


def search_step(task: Task, here: Here) -> Work:
    """Search on the supernet: weights learn from one half of the device's images, the architecture from both."""
    order = task.order_as(CellOrder)
    module = module_for(task, here.accelerator)
    parameters = dict(module.named_parameters())
    if ALPHAS not in parameters:
        raise MessageError("the network to search in has no architecture parameters")
    alphas = parameters.pop(ALPHAS)
    stepped_on, compared = halves(here.images, task.seed)
    loss = MixedLevel(
        CrossEntropy(mask=mask_for(here.images.labels, task.network.classes, order.masked_loss)),
        alphas,
        Adam(
            [alphas],
            lr=order.fednas_architecture_learning_rate,
            betas=BETAS,
            weight_decay=order.fednas_architecture_weight_decay,
        ),
        _endless(Feed(compared, here.preprocessor, order.batch_size), here),
        order,
    )
    weights, rate = list(parameters.values()), cosine(order)
    epochs = training_epochs(module, task, order, here, loss_of=loss, moved=weights, images=stepped_on, rate=rate)
    losses = list(epochs)
    return Work({WEIGHTS: task.network.layout.flatten(module.state_dict())}, losses[-1])


def train_step(task: Task, here: Here) -> Work:
    """Train the network of the found cells on all of the device's images."""
    order = task.order_as(CellOrder)
    module = module_for(task, here.accelerator)
    if not isinstance(module, CellNetwork):
        raise MessageError("the network to train is not one of found cells")
    module.drop_path = order.fednas_drop_path
    mask = mask_for(here.images.labels, task.network.classes, order.masked_loss)
    loss: Loss = CrossEntropy(mask=mask)
    if module.auxiliary_head is not None:
        loss = WithAuxiliary(loss, order.fednas_auxiliary_coefficient, mask)
    losses = list(training_epochs(module, task, order, here, loss_of=loss, rate=cosine(order)))
    return Work({WEIGHTS: task.network.layout.flatten(module.state_dict())}, losses[-1])


def halves(images: Images, seed: int) -> tuple[Images, Images]:
    """The half that weights learn from and the one that they never see, the same in every round."""
    first, second = split_stratified(images.labels, 0.5, torch_generator(seed, "search-halves"))
    if min(len(first), len(second)) < 2:
        raise DataError(f"a search needs two images in each half, but this device has {len(images)}")
    return images.subset(first), images.subset(second)


def cosine(order: CellOrder) -> Callable[[int], float]:
    """The learning rate of each epoch of a round: it falls along half a cosine, and begins anew in every round."""
    highest, lowest = order.learning_rate, min(order.fednas_lowest_learning_rate, order.learning_rate)
    return lambda epoch: lowest + (highest - lowest) * (1 + math.cos(math.pi * (epoch - 1) / order.epochs)) / 2


@dataclass(frozen=True)
class MixedLevel:
    """The loss of the weights' step, before which the architecture takes one on the same batch and one of the others.

    alpha <- Adam(alpha, lambda_valid * dL_valid/dalpha + lambda_train * dL_train/dalpha), at the present weights. With
    both lambdas 0 the architecture stays: Adam would follow the weight decay alone, in whole steps.
    """

    loss: Loss
    alphas: nn.Parameter
    optimizer: torch.optim.Optimizer
    others: Iterator[Batch]
    order: CellOrder

    def __call__(self, module: nn.Module, batch: Batch) -> Answer:
        """Step the architecture, then answer as the loss does."""
        if self.order.fednas_validation_coefficient == self.order.fednas_training_coefficient == 0:
            return self.loss(module, batch)
        gradient = torch.zeros_like(self.alphas)
        if self.order.fednas_validation_coefficient > 0:
            gradient += self.order.fednas_validation_coefficient * self._slope(module, next(self.others))
        if self.order.fednas_training_coefficient > 0:
            gradient += self.order.fednas_training_coefficient * self._slope(module, batch)
        self.alphas.grad = gradient
        self.optimizer.step()
        return self.loss(module, batch)

    def _slope(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        return torch.autograd.grad(self.loss(module, batch).objective, [self.alphas])[0]


@dataclass(frozen=True)
class WithAuxiliary:
    """A loss plus `coefficient` times the cross-entropy of the auxiliary head's logits; the first alone is reported."""

    loss: Loss
    coefficient: float
    mask: Callable[[torch.Tensor], torch.Tensor] | None

    def __call__(self, module: nn.Module, batch: Batch) -> Answer:
        """The answer of the main head."""
        answer = self.loss(module, batch)
        logits = module.auxiliary_logits
        assert isinstance(logits, torch.Tensor)
        second = F.cross_entropy(logits if self.mask is None else self.mask(logits), batch.labels)
        return answer._replace(objective=answer.objective + self.coefficient * second)


def _endless(feed: Feed, here: Here) -> Iterator[Batch]:
    while True:
        yield from feed.training(here.generator, here.accelerator)


STEPS = {SEARCH: search_step, TRAIN: train_step}
