"""Joint training of a family: every member is a slice of one network, and what members share has one value.

Universally slimmable networks (Yu and Huang 2019, arXiv:1903.05134, section 3.3) with any channels, not the first ones.
At every step each member sees the same batch; the largest learns the labels, the others its answers as well
(in-place distillation). Batch norms belong to each member alone (Yu et al. 2019, arXiv:1812.08928, section 3.3): means
and variances of one width are not those of another. Members that were fine-tuned apart disagree about the weights they
share; after this they agree, so that what the devices of one member learn suits the others.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from common.architecture import Architecture
from common.errors import FedDACError
from common.groups import SearchSettings
from common.layout import State
from common.learning import Batch, Feed, distance, evaluate, place, recalibrate, shorten_gradient
from common.models.map_layout import map_layout
from common.optimizers import SGD
from common.progress import Progress
from common.seeds import derive_seed, seeded, torch_generator
from common.slicing import coordinates, cut, state_of
from dac.files import Member
from dac.recipe import RECIPES
from dac.train import learning_rate_factor

STAGE = "joint training"


def share_weights(
    members: Sequence[Member],
    train: Feed,
    validation: Feed,
    settings: SearchSettings,
    *,
    seed: int,
    accelerator: torch.device,
    progress: Progress,
) -> list[Member]:
    """The members, cut from one base network, after `joint_epochs` passes over `train`; one alone stays as it is.

    A shared weight starts from the largest member that holds it and moves by the mean gradient of those that do. A
    step's gradient, of shared weights and all members' batch norms together, is shortened as the recipe says. The
    learning rate falls along a cosine; batch norms' statistics are measured anew at the end. Raises FedDACError if the
    training diverges.
    """
    epochs = settings.joint_epochs
    if epochs == 0 or len(members) < 2:
        return list(members)
    order = sorted(range(len(members)), key=lambda number: -members[number].architecture.costs.macs)
    shared = _Shared([members[number] for number in order], accelerator)
    groups = [
        {"params": list(shared.parameters.values()), "weight_decay": settings.search_weight_decay},
        {"params": shared.norms, "weight_decay": 0.0},
    ]
    optimizer = SGD(groups, lr=settings.search_learning_rate, momentum=settings.search_momentum)
    recipe = RECIPES[settings.recipe]
    steps = epochs * train.training_steps
    step = 0
    progress.start(STAGE, epochs)
    with seeded(derive_seed(seed, "joint-dropout"), accelerator):
        for epoch in range(1, epochs + 1):
            losses = []
            for batch in train.training(torch_generator(seed, "joint", epoch), accelerator):
                for group in optimizer.param_groups:
                    group["lr"] = settings.search_learning_rate * learning_rate_factor(step, steps, 0.0)
                optimizer.zero_grad(set_to_none=True)
                losses.append(shared.backward(batch, recipe.distillation))
                shorten_gradient([*shared.parameters.values(), *shared.norms], recipe.max_gradient_norm)
                optimizer.step()
                step += 1
            loss = float(torch.stack(losses).mean())
            if not math.isfinite(loss):
                raise FedDACError(f"joint training diverged in epoch {epoch}; lower --search-learning-rate")
            progress.advance(STAGE, 1, f"epoch {epoch}: mean loss {loss:.3f}")
    progress.finish(STAGE, f"{len(members)} architectures share their weights")
    trained = dict(zip(order, shared.modules_with_weights(train), strict=True))
    return [
        replace(
            member,
            state=state_of(trained[number]),
            validation_accuracy=evaluate(trained[number], validation, accelerator).accuracy,
        )
        for number, member in enumerate(members)
    ]


class _Shared:
    """One network's weights, and the modules that take theirs from it; the largest first.

    What a network's author froze is not among them: it is every module's own, and equal in all.
    """

    def __init__(self, members: Sequence[Member], accelerator: torch.device) -> None:
        full = Architecture.full(members[0].architecture.base)
        self.axes = full.description.tensor_axes
        self.accelerator = accelerator
        self.modules = [place(one.architecture.build_from(one.state), accelerator).train() for one in members]
        self.cuts = [cut(full, one.architecture) for one in members]
        norms = {layer.name for layer in full.description.layers if layer.kind == "batch_norm"}
        own = [
            {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
            for module in self.modules
        ]
        shared = [name for name in self.axes if name.rpartition(".")[0] not in norms]
        self.names = [[name for name in shared if name in parameters] for parameters in own]
        self.norms = [
            parameter
            for parameters in own
            for name, parameter in parameters.items()
            if name.rpartition(".")[0] in norms
        ]
        layout = full.layout
        values, holders = np.zeros(layout.size, np.float32), np.zeros(layout.size, np.float32)
        for one in reversed(members):
            values[coordinates(one.architecture)] = one.architecture.layout.flatten(one.state)
            holders[coordinates(one.architecture)] += 1
        whole, counts = layout.unflatten(values), layout.unflatten(np.maximum(holders, 1))
        held = [name for name in shared if any(name in parameters for parameters in own)]
        self.parameters = {name: whole[name].to(accelerator).requires_grad_() for name in held}
        self.holders = {name: counts[name].to(accelerator) for name in held}

    def backward(self, batch: Batch, distillation: float) -> torch.Tensor:
        """Leave the gradients of one batch; returns the members' mean loss."""
        total = torch.zeros((), device=self.accelerator)
        wanted: torch.Tensor | None = None
        for number, module in enumerate(self.modules):
            logits = functional_call(module, self._slice(number), (batch.images,)).float()
            loss = F.cross_entropy(logits, batch.labels)
            if wanted is None:
                wanted = logits.detach()
            elif distillation > 0:
                loss = (1 - distillation) * loss + distillation * distance(logits, wanted)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach() / len(self.modules)
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                parameter.grad.div_(self.holders[name])
        return total

    @torch.no_grad()
    def modules_with_weights(self, train: Feed) -> list[nn.Module]:
        """Every member's module with weights of its own, and batch-norm statistics measured on `train`."""
        for number, module in enumerate(self.modules):
            own = dict(module.named_parameters())
            for name, value in self._slice(number).items():
                own[name].copy_(value)
            recalibrate(module, train, self.accelerator)
        return self.modules

    def _slice(self, number: int) -> State:
        """A member's own tensors, in the memory layout that its module runs fastest with."""
        kept = self.cuts[number]
        own = {name: kept.tensor(self.parameters[name], self.axes[name]) for name in self.names[number]}
        four = map_layout(self.modules[number])
        return {name: t.contiguous(memory_format=four) if t.dim() == 4 else t for name, t in own.items()}
