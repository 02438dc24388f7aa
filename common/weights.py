"""A model on the wire: one flat float32 vector and the hash of its layout.

Flower moves every array of a record as an object of its own; one array instead of 314 makes a round between separate
processes three to four times faster. Integer buffers (batch-norm step counters) do not travel: with a fixed momentum
nothing reads them.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from common.architecture import Architecture
from common.errors import MessageError
from common.slicing import State, slice_state

Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the float tensors of an architecture, in state-dict order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, architecture: Architecture) -> Self:
        """The layout of an architecture's state dict."""
        sizes = architecture.sizes
        taps = {layer.name: layer.taps for layer in architecture.description.layers}
        names, shapes = [], []
        for name, axes in architecture.description.tensor_axes.items():
            if not axes:
                continue
            side = math.isqrt(taps[name.rpartition(".")[0]])
            fixed = [1, side, side] if len(axes) == 4 and axes[1] is None else [side, side]
            sized = [sizes[axis.group] * axis.spread for axis in axes if axis is not None]
            names.append(name)
            shapes.append(tuple(sized + (fixed if len(axes) == 4 else [])))
        return cls(tuple(names), tuple(shapes))

    @property
    def size(self) -> int:
        """Number of float32 values."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def hash(self) -> str:
        """SHA-256 over names, shapes and order, in hexadecimal."""
        text = ";".join(f"{name}:{shape}" for name, shape in zip(self.names, self.shapes, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()

    def flatten(self, state: Mapping[str, torch.Tensor]) -> Vector:
        """The float tensors of `state`, one after the other; shape (size,)."""
        return torch.cat([state[name].detach().reshape(-1).cpu() for name in self.names]).numpy()

    def unflatten(self, vector: Vector) -> State:
        """The inverse of `flatten`; the tensors are copies. Raises MessageError if the length is wrong."""
        if vector.shape != (self.size,):
            raise MessageError(f"the model has {self.size} values, the message {vector.shape}")
        state: State = {}
        start = 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            stop = start + math.prod(shape)
            state[name] = torch.from_numpy(vector[start:stop].copy()).reshape(shape)
            start = stop
        return state


@lru_cache(maxsize=64)
def coordinates(architecture: Architecture) -> NDArray[np.int64]:
    """Where each weight of the architecture stands in its base network's flat vector; shape (size,)."""
    full = Architecture.full(architecture.base)
    numbers: Any = np.arange(Layout.of(full).size)  # a vector like any other, but of int64
    kept = slice_state(Layout.of(full).unflatten(numbers), full, architecture)
    found: Any = Layout.of(architecture).flatten(kept)
    return found  # type: ignore[no-any-return]


def load_weights(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy `state` into the module's tensors in place; integer counters that it lacks stay as they are."""
    own = module.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
