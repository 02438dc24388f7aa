"""Weights of a smaller architecture out of a larger one's, exactly, by channel index.

State dicts are plain `name -> tensor` mappings as `module.state_dict()` gives them. Which index each tensor axis runs
over comes from the network's description, so nothing here knows a model.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.layout import State
from common.models.description import Axis


def state_of(module: nn.Module) -> State:
    """The weights of a module, on the CPU and contiguous, as files hold them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def slice_state(state: Mapping[str, torch.Tensor], larger: Architecture, smaller: Architecture) -> State:
    """The tensors of `smaller`, taken out of the `state` of `larger`.

    Names of `state` the description does not know (gates, say) are left out. Raises ArchitectureError if `smaller`
    keeps a channel that `larger` does not have.
    """
    if not larger.contains(smaller):
        raise ArchitectureError("the smaller architecture keeps channels that the larger one does not have")
    positions = group_positions(larger, smaller)
    return {
        name: slice_tensor(state[name], axes, positions)
        for name, axes in larger.description.tensor_axes.items()
        if name in state
    }


def group_positions(larger: Architecture, smaller: Architecture) -> dict[str, torch.Tensor]:
    """For every channel group, where in `larger` the channels of `smaller` stand; int64 tensors of shape (kept,)."""
    found: dict[str, torch.Tensor] = {}
    for name, kept in smaller.indices.items():
        place = {channel: position for position, channel in enumerate(larger.indices[name])}
        found[name] = torch.tensor([place[channel] for channel in kept])
    return found


def slice_tensor(
    tensor: torch.Tensor, axes: tuple[Axis | None, ...], positions: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """A copy of `tensor` with every axis of a channel group reduced to the `positions` of that group."""
    result = tensor
    for dimension, axis in enumerate(axes):
        if axis is None:
            continue
        index = positions[axis.group]
        if axis.spread > 1:
            index = (index[:, None] * axis.spread + torch.arange(axis.spread)).flatten()
        if len(index) < result.shape[dimension]:
            result = result.index_select(dimension, index.to(tensor.device))
    return result.clone() if result is tensor else result


@lru_cache(maxsize=64)
def coordinates(architecture: Architecture) -> NDArray[np.int64]:
    """Where each weight of the architecture stands in its base network's flat vector; shape (size,)."""
    full = Architecture.full(architecture.base)
    numbers: Any = np.arange(full.layout.size)  # a vector like any other, but of int64
    kept = slice_state(full.layout.unflatten(numbers), full, architecture)
    found: Any = architecture.layout.flatten(kept)
    return found  # type: ignore[no-any-return]
