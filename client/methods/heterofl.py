"""HeteroFL's scaler (Diao et al. 2021, section 3): a slice's activations brought to the size of the whole network's.

Fewer channels in, smaller sums out: with a share r of the channels, outputs are divided by r while training, as dropout
does, and left alone in evaluation.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from client.models import module_for
from client.steps import Here, Work
from client.training import train
from common.messages import Task
from common.methods.heterofl import ScaledOrder
from common.methods.training import TRAIN


def train_step(task: Task, here: Here) -> Work:
    """Local training with the outputs of convolutions divided by the order's scale."""
    order = task.order_as(ScaledOrder)
    module = module_for(task, here.accelerator)
    with scaled_convolutions(module, order.activation_scale):
        return train(module, task, order, here)


@contextmanager
def scaled_convolutions(module: nn.Module, scale: float) -> Iterator[None]:
    """Divide the output of every convolution of `module` by `scale`; undone at the end. Does nothing for 1."""

    def divide(layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output / scale

    with ExitStack() as hooks:
        if scale != 1:
            for layer in module.modules():
                if isinstance(layer, nn.Conv2d):
                    hooks.enter_context(layer.register_forward_hook(divide))
        yield


STEPS = {TRAIN: train_step}
