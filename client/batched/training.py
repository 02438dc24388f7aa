"""Some epochs of local training of several devices at once: what each comes to is what it would alone, but rounding.

A device draws its batches, augmentation and dropout from its own generators, has its own loss, clipped gradient and
optimizer, and stops when its images are over: what it has stays untouched while others go on. Sums are in another
order, which is all that differs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from client.batched.jobs import Job
from client.batched.layers import Draws, unstacked
from client.batched.network import StackedNetwork
from client.masked_loss import mask_for
from client.methods.heterofl import scaled_convolutions
from client.steps import Here, Work
from client.training import diverged
from common.errors import FederationError
from common.layout import Layout
from common.learning import Batch, Feed, begin_training, shorten_gradient
from common.optimizers import make_optimizer

Outcome: TypeAlias = Work | FederationError

NO_LABEL = -100
"""The label of an image that is no device's own, which the loss leaves out."""


@dataclass(frozen=True)
class Member:
    """One of the devices that train together: its job, where it is done, and the seed of its dropout."""

    job: Job
    here: Here
    dropout_seed: int

    @property
    def feed(self) -> Feed:
        """Its images."""
        return Feed(self.here.images, self.here.preprocessor, self.job.order.batch_size)


def train_members(template: nn.Module, layout: Layout, classes: int, members: Sequence[Member]) -> list[Outcome]:
    """What comes of each member's training, in their order; a device that diverges has an error, the others go on.

    `template` is that of their network (`client.batched.trial`); the orders of all jobs must be equal.
    """
    # those with most batches first: then those that still have some are always the first ones
    ranking = sorted(range(len(members)), key=lambda number: -members[number].feed.training_steps)
    outcomes = _Training(template, layout, classes, [members[number] for number in ranking]).run()
    return [outcome for _, outcome in sorted(zip(ranking, outcomes, strict=True), key=lambda pair: pair[0])]


class _Training:
    """Devices in the order of their number of batches, the most first."""

    def __init__(self, template: nn.Module, layout: Layout, classes: int, members: Sequence[Member]) -> None:
        self._members = members
        self._order = order = members[0].job.order
        self._accelerator = accelerator = members[0].here.accelerator
        draws = Draws([member.dropout_seed for member in members], accelerator)
        self._network = StackedNetwork(template, layout, [one.job.weights for one in members], draws, accelerator)
        # to its optimizer each device is one parameter, which has a gradient only where it has a batch
        self._rows = [nn.Parameter(row) for row in self._network.parameters]
        self._optimizer = make_optimizer(
            order.optimizer, self._rows, order.learning_rate, order.momentum, order.weight_decay
        )
        self._adjust = [member.job.adjusted(self._network.row) for member in members]
        self._absent = [mask_for(member.here.images.labels, classes, order.masked_loss) for member in members]

    def run(self) -> list[Outcome]:
        """Train, and answer for each device."""
        count = len(self._members)
        module = self._network.module
        begin_training(module, self._order.frozen_norms)
        errors: dict[int, FederationError] = {}
        losses = [math.nan] * count
        with scaled_convolutions(module, self._members[0].job.activation_scale):
            for epoch in range(1, self._order.epochs + 1):
                losses = self._epoch()
                for device, loss in enumerate(losses):
                    if not math.isfinite(loss) and device not in errors:
                        errors[device] = diverged(epoch, loss)
                self._members[0].here.check_deadline()
        return [
            errors[device] if device in errors else member.job.answer(self._network.vector(device), losses[device])
            for device, member in enumerate(self._members)
        ]

    def _epoch(self) -> list[float]:
        """The mean loss of each device over its images, each of which it sees once.

        All batches but the last of a device have one size; the last ones, of any size, are trained on together.
        """
        feeds = [member.feed for member in self._members]
        batches = [
            feed.training(member.here.generator, self._accelerator)
            for feed, member in zip(feeds, self._members, strict=True)
        ]
        sums = torch.zeros(len(feeds), dtype=torch.float64, device=self._accelerator)
        for number in range(1, feeds[0].training_steps + 1):
            devices = sum(feed.training_steps > number for feed in feeds)
            if devices:
                sums[:devices] += self._step([next(own) for own in batches[:devices]])
        sums += self._step([next(own) for own in batches])
        return [total / len(feed.images) for total, feed in zip(sums.tolist(), feeds, strict=True)]

    def _step(self, batches: Sequence[Batch]) -> torch.Tensor:
        """Train the first devices on a batch each; returns the sum of each one's losses over its batch, (devices,)."""
        devices, sizes = len(batches), [len(batch.labels) for batch in batches]
        longest = max(sizes)
        self._network.use(devices, None if min(sizes) == longest else sizes)
        images = torch.cat([_lengthened(batch.images, longest, 0) for batch in batches], 1)
        labels = torch.stack([_lengthened(batch.labels, longest, NO_LABEL) for batch in batches], 1)
        logits = self._network.module(images.contiguous(memory_format=torch.channels_last))
        logits = self._masked(unstacked(logits.float(), devices))
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none")
        total = each.view(longest, devices).sum(0)
        self._network.backward((total / torch.tensor(sizes, device=self._accelerator)).sum())
        self._descend(devices)
        return total.detach().double()

    def _masked(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (B, devices, classes) without the classes that a device has no image of."""
        own = zip(logits.unbind(1), self._absent, strict=False)
        if all(mask is None for mask in self._absent):
            return logits
        return torch.stack([one if mask is None else mask(one) for one, mask in own], 1)

    def _descend(self, devices: int) -> None:
        """One step of the first devices along their gradients; those of the others stay as they are."""
        for device, row in enumerate(self._rows):
            row.grad = self._network.gradients[device] if device < devices else None
            if row.grad is not None:
                self._adjust[device](row.grad, row.detach())
                shorten_gradient([row], self._order.max_gradient_norm)
        self._optimizer.step()


def _lengthened(values: torch.Tensor, length: int, fill: int) -> torch.Tensor:
    """`values` (B, ...) followed by as many of `fill` as make it (length, ...)."""
    return F.pad(values, (0, 0) * (values.dim() - 1) + (0, length - len(values)), value=fill)
