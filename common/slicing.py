"""Weights of a smaller architecture out of a larger one's, exactly, by channel index.

State dicts are plain `name -> tensor` mappings as `module.state_dict()` gives them. Which index each tensor axis runs
over comes from the network's description, so nothing here knows a model.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.architecture import Architecture
from common.errors import ArchitectureError
from common.layout import State
from common.models.description import Dimension, Tensor


def state_of(module: nn.Module) -> State:
    """The weights of a module, on the CPU and contiguous, as files hold them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


@dataclass(frozen=True)
class Cut:
    """Where in a larger architecture the channels of a smaller one stand.

    `positions` are int64 tensors of shape (kept,) by channel group; `sizes` the channels of the larger one.
    """

    positions: Mapping[str, torch.Tensor]
    sizes: Mapping[str, int]

    def tensor(self, tensor: torch.Tensor, dimensions: tuple[Dimension, ...]) -> torch.Tensor:
        """A copy of `tensor` with every dimension that runs over channels reduced to those that are kept."""
        result = tensor
        for place, dimension in enumerate(dimensions):
            if dimension:
                index = self._index(dimension)
                if len(index) < result.shape[place]:
                    result = result.index_select(place, index.to(tensor.device))
        return result.clone() if result is tensor else result

    def write(self, tensor: torch.Tensor, dimensions: tuple[Dimension, ...], part: torch.Tensor) -> None:
        """The inverse of `tensor`: copy `part` to where its channels stand in the larger `tensor`."""
        index = [
            self._index(dimension) if dimension else torch.arange(size)
            for size, dimension in zip(tensor.shape, dimensions, strict=True)
        ]
        tensor[torch.meshgrid(*index, indexing="ij") if index else ()] = part

    def write_places(self, tensor: Tensor, start: int, places: NDArray[np.signedinteger[Any]]) -> None:
        """Where in a larger flat vector that has `tensor` from `start` the values that are kept stand, in their order.

        `places` has shape (kept,) and is filled.
        """
        found = np.full(1, start, places.dtype)
        shape = tensor.shape_at(self.sizes)
        for place, (size, dimension) in enumerate(zip(shape, tensor.dimensions, strict=True)):
            index = self._index(dimension).numpy() if dimension else np.arange(size)
            stride = math.prod(shape[place + 1 :])
            offsets = (index * stride).astype(places.dtype)
            last = place == len(shape) - 1
            found = np.add(found[:, None], offsets, out=places.reshape(-1, len(offsets)) if last else None).reshape(-1)
        if not shape:
            places[:] = found

    def _index(self, dimension: Dimension) -> torch.Tensor:
        stretches, start = [], 0
        for axis in dimension:
            index = self.positions[axis.group]
            if axis.spread > 1:
                index = (index[:, None] * axis.spread + torch.arange(axis.spread)).flatten()
            stretches.append(index + start)
            start += self.sizes[axis.group] * axis.spread
        return torch.cat(stretches)


def cut(larger: Architecture, smaller: Architecture) -> Cut:
    """Where the channels of `smaller` stand in `larger`, which must contain it."""
    found: dict[str, torch.Tensor] = {}
    for name, kept in smaller.indices.items():
        place = {channel: position for position, channel in enumerate(larger.indices[name])}
        found[name] = torch.tensor([place[channel] for channel in kept], dtype=torch.int64)
    return Cut(found, larger.sizes)


def slice_state(state: Mapping[str, torch.Tensor], larger: Architecture, smaller: Architecture) -> State:
    """The tensors of `smaller`, taken out of the `state` of `larger`.

    Names of `state` the description does not know (gates, say) are left out. Raises ArchitectureError if `smaller`
    keeps a channel or a block that `larger` does not have.
    """
    if not larger.contains(smaller):
        raise ArchitectureError("the smaller architecture keeps channels that the larger one does not have")
    kept = cut(larger, smaller)
    return {
        tensor.name: kept.tensor(state[tensor.name], tensor.dimensions)
        for tensor in larger.description.tensors
        if tensor.name in state and tensor.block not in smaller.removed
    }


@lru_cache(maxsize=64)
def coordinates(architecture: Architecture) -> NDArray[np.signedinteger[Any]]:
    """Where each weight of the architecture stands in its base network's flat vector; shape (size,), int32 if it can.

    A federation keeps one such vector for each cohort.
    """
    full = Architecture.full(architecture.base)
    kept, layout = cut(full, architecture), full.layout
    dtype: type[np.signedinteger[Any]] = np.int32 if layout.size <= np.iinfo(np.int32).max else np.int64
    sizes = [math.prod(shape) for shape in layout.shapes]
    starts = dict(zip(layout.names, itertools.accumulate(sizes, initial=0), strict=False))
    places, done = np.empty(architecture.layout.size, dtype), 0
    for name, shape in zip(architecture.layout.names, architecture.layout.shapes, strict=True):
        part = places[done : done + math.prod(shape)]
        kept.write_places(full.description.tensor_by_name[name], starts[name], part)
        done += len(part)
    return places
