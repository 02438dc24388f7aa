"""The module of a task: built once per process and architecture, filled with the weights that were sent."""

from functools import lru_cache

import torch
from torch import nn

from common.architecture import Architecture
from common.data.images import Images
from common.errors import MessageError
from common.layout import load_weights
from common.learning import place
from common.messages import Task


def module_for(task: Task, accelerator: torch.device) -> nn.Module:
    """A module of the task's architecture with the task's weights; valid until the next call."""
    module = _module(task.architecture, accelerator)
    load_weights(module, task.architecture.layout.unflatten(task.weights))
    return module


def require_fit(task: Task, images: Images) -> None:
    """Raise MessageError unless the model takes these images and has an output for each of their labels."""
    base = task.architecture.base
    shape = tuple(images.images.shape[1:])
    if shape != base.input_shape:
        raise MessageError(f"the model takes images of shape {base.input_shape}, this device has {shape}")
    if int(images.labels.max()) >= base.classes:
        raise MessageError(f"the model has {base.classes} classes, this device has label {int(images.labels.max())}")


# A simulation's worker meets a handful of architectures in turn.
@lru_cache(maxsize=8)
def _module(architecture: Architecture, accelerator: torch.device) -> nn.Module:
    return place(architecture.build(0), accelerator)
