"""The optimizers that settings name, and their state as arrays, so that training can go on where it was left."""

from collections.abc import Iterable
from inspect import unwrap

import numpy as np
import torch
from torch import nn

from common.arrays import Arrays
from common.budget import OPTIMIZERS

ADAM_SECOND = 0.999
"""Adam's decay of the squared gradients (Kingma and Ba 2015, algorithm 1, beta_2)."""


class _WithoutCompiler(torch.optim.Optimizer):
    """torch's optimizers with the wrappers taken off that hide them from torch.compile, which nothing here uses.

    A wrapper imports the compiler when it is first called, in every process that trains, also where it has nothing to
    hide: 1.1 CPU seconds and 160 MB. What is computed is the same; should a wrapper change so that it cannot be taken
    off, it stays on.
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class SGD(_WithoutCompiler, torch.optim.SGD):
    """`torch.optim.SGD`."""

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


class Adam(_WithoutCompiler, torch.optim.Adam):
    """`torch.optim.Adam`."""

    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


def make_optimizer(
    kind: str, parameters: Iterable[nn.Parameter], learning_rate: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """One of `common.budget.OPTIMIZERS`, the same wherever a setting names it.

    `sgd` has a heavy ball's momentum, `nesterov` Nesterov's (Sutskever et al. 2013), which must be above 0. `adam` is
    Kingma and Ba 2015, algorithm 1, and `amsgrad` Reddi et al. 2018, algorithm 2, with the bias corrections of Adam;
    `momentum` is the beta_1 of both. Weight decay is added to the gradient. Raises ValueError for another kind.
    """
    if kind not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {kind!r}")
    if kind in ("adam", "amsgrad"):
        betas = (momentum, ADAM_SECOND)
        return Adam(parameters, learning_rate, betas, weight_decay=weight_decay, amsgrad=kind == "amsgrad")
    return SGD(parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=kind == "nesterov")


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> Arrays:
    """What the optimizer remembers, by number of the parameter and name; none before its first step."""
    return {
        f"{number}/{name}": value.detach().cpu().numpy().copy()
        for number, memory in optimizer.state_dict()["state"].items()
        for name, value in memory.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, arrays: Arrays) -> None:
    """Let a fresh optimizer of the same kind and parameters remember what `optimizer_arrays` gave.

    Raises KeyError or ValueError for arrays of another one.
    """
    memory: dict[int, dict[str, torch.Tensor]] = {}
    for place, values in arrays.items():
        number, _, name = place.partition("/")
        memory.setdefault(int(number), {})[name] = torch.from_numpy(np.array(values))
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
