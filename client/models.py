"""The module of a task: built once per process and network, filled with the weights that were sent."""

from functools import lru_cache

import torch
from torch import nn

from common.data.images import Images
from common.errors import MessageError
from common.layout import load_weights
from common.learning import place
from common.messages import Task
from common.network import Network


def module_for(task: Task, accelerator: torch.device) -> nn.Module:
    """A module of the task's network with the task's weights; valid until the next call."""
    module = _module(task.network, accelerator)
    load_weights(module, task.network.layout.unflatten(task.weights))
    return module


def require_fit(network: Network, images: Images) -> None:
    """Raise MessageError unless the network takes these images and has an output for each of their labels."""
    shape = tuple(images.images.shape[1:])
    if shape != network.input_shape:
        raise MessageError(f"the model takes images of shape {network.input_shape}, this device has {shape}")
    if int(images.labels.max()) >= network.classes:
        raise MessageError(f"the model has {network.classes} classes, this device has label {int(images.labels.max())}")


# A simulation's worker meets a handful of networks in turn.
@lru_cache(maxsize=8)
def _module(network: Network, accelerator: torch.device) -> nn.Module:
    return place(network.build(0), accelerator)
