"""AutoFLIP on a device: explore the loss from the common base, then train what is left of the network.

An explorer trains its own copy of the base and reports (w - base)^2 for every weight; the published program handed one
model from explorer to explorer. While a network with a mask is trained, the mask is applied to every gradient, so that
a removed weight, which begins at zero, stays there under every optimizer: no momentum, Adam moment or weight decay of
it is ever other than zero, and the norm that gradients are clipped by does not see it.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
from torch import nn

from client.models import module_for
from client.steps import Here, Work
from client.training import train, train_step, training_epochs
from common.layout import Layout
from common.messages import WEIGHTS, Task
from common.methods.autoflip import DISPLACEMENT, EPOCHS, EXPLORE, MASK, SPARSE, VALUES, ExplorationOrder
from common.methods.training import TRAIN, TrainingOrder
from common.sparse import Kept, spread, unpacked


def explore_step(task: Task, here: Here) -> Work:
    """The squared displacement of every weight, shape (size,), and the epochs taken, shape (1,).

    Training ends after the order's epochs, or after `patience` of them without a lower mean training loss.
    """
    order = task.order_as(ExplorationOrder)
    module = module_for(task, here.accelerator)
    best, stale, epochs, loss = math.inf, 0, 0, math.nan
    for loss in training_epochs(module, task, order, here):
        epochs += 1
        stale = 0 if loss < best else stale + 1
        best = min(best, loss)
        if stale >= order.patience:
            break
    moved = task.network.layout.flatten(module.state_dict()) - task.weights
    return Work({DISPLACEMENT: moved**2, EPOCHS: np.array([epochs], np.int32)}, loss)


def sparse_step(task: Task, here: Here) -> Work:
    """Local training under the mask; the values of the kept weights go back."""
    order, layout = task.order_as(TrainingOrder), task.network.layout
    kept = unpacked(task.array(MASK), layout.size)
    dense = replace(task, arrays={WEIGHTS: spread(task.array(VALUES), kept)})
    module = module_for(dense, here.accelerator)
    with masked_gradients(module, layout, kept):
        work = train(module, dense, order, here)
    return Work({VALUES: work.arrays[WEIGHTS][kept]}, work.loss)


@contextmanager
def masked_gradients(module: nn.Module, layout: Layout, kept: Kept) -> Iterator[None]:
    """Gradients of weights that are not kept are zero; undone at the end."""
    masks = layout.unflatten(kept.astype(np.float32))
    with ExitStack() as hooks:
        trained = [(name, one) for name, one in module.named_parameters() if one.requires_grad]
        for name, parameter in trained:
            mask = masks[name].to(parameter.device)
            hook = parameter.register_hook(mask.mul)  # type: ignore[no-untyped-call]
            hooks.callback(hook.remove)
        yield


STEPS = {EXPLORE: explore_step, TRAIN: train_step, SPARSE: sparse_step}
