"""FedProx on a device: the loss grows with the distance from what was sent (Li et al. 2020, equation 2)."""

import torch

from client.models import module_for
from client.steps import Here, Work
from client.training import train
from common.messages import Task
from common.methods.fedprox import ProximalOrder
from common.methods.training import TRAIN


def train_step(task: Task, here: Here) -> Work:
    """Local training with mu / 2 times the squared distance of the parameters from their first values."""
    order = task.order_as(ProximalOrder)
    module = module_for(task, here.accelerator)
    pairs = [(parameter, parameter.detach().clone()) for parameter in module.parameters()]

    def proximal_term() -> torch.Tensor:
        distance = sum(((now - sent) ** 2).sum() for now, sent in pairs)
        return torch.as_tensor(order.proximal_coefficient / 2 * distance)

    return train(module, task, order, here, penalty=proximal_term)


STEPS = {TRAIN: train_step}
