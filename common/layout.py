"""A model on the wire: one flat float32 vector and the hash of its layout.

Flower moves every array of a record as an object of its own; one array instead of 314 makes a round between separate
processes three to four times faster. Integer buffers (batch-norm step counters) do not travel: with a fixed momentum
nothing reads them.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch

from common.arrays import Vector
from common.errors import MessageError

State: TypeAlias = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the float tensors of a network, in state-dict order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Number of float32 values."""
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over names, shapes and order, in hexadecimal."""
        text = ";".join(f"{name}:{shape}" for name, shape in zip(self.names, self.shapes, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()

    def flatten(self, state: Mapping[str, torch.Tensor]) -> Vector:
        """The float tensors of `state`, one after the other; shape (size,)."""
        return torch.cat([state[name].detach().reshape(-1).cpu() for name in self.names]).numpy()

    def tensor(self, vector: Vector, name: str) -> Vector:
        """The values of one tensor in a vector of shape (size,): a view in the tensor's shape."""
        place = self.names.index(name)
        start = sum(math.prod(shape) for shape in self.shapes[:place])
        return vector[start : start + math.prod(self.shapes[place])].reshape(self.shapes[place])

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


def load_weights(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy `state` into the module's tensors in place; integer counters that it lacks stay as they are."""
    own = module.state_dict()
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
