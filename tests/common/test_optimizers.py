"""Optimizers by name, and training that goes on where it was left."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from common.budget import OPTIMIZERS, LocalTraining
from common.optimizers import SGD, Adam, make_optimizer, optimizer_arrays, restore_optimizer

KINDS = tuple(OPTIMIZERS)


def step(module: nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    optimizer.zero_grad()
    module(torch.randn(4, 3, generator=generator)).square().sum().backward()
    optimizer.step()


def start(kind: str) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    return module, make_optimizer(kind, module.parameters(), 0.01, 0.9, 1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_restored_optimizer_goes_on_bit_for_bit(kind: str, cut: int) -> None:
    whole, optimizer = start(kind)
    for number in range(4):
        step(whole, optimizer, number)
    first, optimizer = start(kind)
    for number in range(cut):
        step(first, optimizer, number)
    arrays = {name: values.copy() for name, values in optimizer_arrays(optimizer).items()}
    second, optimizer = start(kind)
    second.load_state_dict(first.state_dict())
    restore_optimizer(optimizer, arrays)
    for number in range(cut, 4):
        step(second, optimizer, number)
    assert torch.equal(second.weight, whole.weight)


def nesterov(weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    velocity = torch.zeros_like(weight)
    for gradient in gradients:
        decayed = gradient + 0.5 * weight
        velocity = 0.9 * velocity + decayed
        weight = weight - 0.1 * (decayed + 0.9 * velocity)
    return weight


def heavy_ball(weight: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    velocity = torch.zeros_like(weight)
    for gradient in gradients:
        velocity = 0.9 * velocity + gradient + 0.5 * weight
        weight = weight - 0.1 * velocity
    return weight


def adam(weight: torch.Tensor, gradients: list[torch.Tensor], largest_counts: bool = False) -> torch.Tensor:
    mean, square, largest = (torch.zeros_like(weight) for _ in range(3))
    for number, gradient in enumerate(gradients, start=1):
        decayed = gradient + 0.5 * weight
        mean, square = 0.9 * mean + 0.1 * decayed, 0.999 * square + 0.001 * decayed**2
        largest = torch.maximum(largest, square) if largest_counts else square
        weight = weight - 0.1 * (mean / (1 - 0.9**number)) / ((largest / (1 - 0.999**number)).sqrt() + 1e-8)
    return weight


RULES: dict[str, Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor]] = {
    "sgd": heavy_ball,
    "nesterov": nesterov,
    "adam": adam,
    "amsgrad": partial(adam, largest_counts=True),
}
GRADIENTS = [torch.tensor(one) for one in ([30.0, 1.0], [0.5, -1.0], [0.1, 0.2])]
START = torch.tensor([1.0, -2.0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_by_hand(kind: str) -> None:
    parameter = nn.Parameter(START.clone())
    optimizer = make_optimizer(kind, [parameter], 0.1, 0.9, 0.5)
    for gradient in GRADIENTS:
        parameter.grad = gradient.clone()
        optimizer.step()
    assert torch.allclose(parameter.detach(), RULES[kind](START, GRADIENTS), atol=1e-6)


def test_no_two_of_them_step_alike() -> None:
    ends = {tuple(rule(START, GRADIENTS).tolist()) for rule in RULES.values()}
    assert len(ends) == len(RULES)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_they_keep_as_many_values_as_training_memory_counts(kind: str, momentum: float) -> None:
    if kind == "nesterov" and momentum == 0:
        with pytest.raises(ValueError, match="Nesterov"):
            make_optimizer(kind, [nn.Parameter(START.clone())], 0.1, momentum, 0.0)
        return
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizer = make_optimizer(kind, module.parameters(), 0.01, momentum, 0.0)
    step(module, optimizer, 0)
    kept = [values for values in optimizer_arrays(optimizer).values() if values.size == module.weight.numel()]
    assert len(kept) == LocalTraining.of(1, kind, momentum).kept


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown optimizer 'lion'"):
        make_optimizer("lion", [], 0.1, 0.9, 0.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}),
        (SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (Adam, torch.optim.Adam, {"lr": 0.1, "betas": (0.5, 0.999), "weight_decay": 1e-2}),
        (Adam, torch.optim.Adam, {"lr": 0.1, "amsgrad": True}),
    ],
)
def test_without_the_compilers_wrappers_the_steps_are_torchs_bit_for_bit(
    ours: type[torch.optim.Optimizer], theirs: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    modules = []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        module = nn.Linear(3, 2)
        optimizer = kind([{"params": [module.weight]}, {"params": [module.bias], "lr": 0.2}], **options)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        for number in range(4):
            step(module, optimizer, number)
            schedule.step()
        again = kind(module.parameters(), **options)
        again.load_state_dict({**optimizer.state_dict(), "param_groups": again.state_dict()["param_groups"]})
        step(module, again, 4)
        modules.append(module)
    assert all(torch.equal(one, other) for one, other in zip(*(module.parameters() for module in modules), strict=True))
