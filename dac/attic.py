"""What a search remembers of removed channels, so that the last ones can come back when a budget is met with room.

A channel comes back with the weights, statistics and gate that it had when it was removed, and without momentum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch

from common.architecture import Architecture
from common.layout import State
from common.models.description import Dimension
from common.slicing import cut
from dac.shrink import Removal
from dac.supernet import Supernet


@dataclass
class Attic:
    """The last known values of everything in `ceiling`, the architecture that the removals in `removed` began with."""

    ceiling: Architecture
    axes: dict[str, tuple[Dimension, ...]]
    state: State
    removed: tuple[Removal, ...] = ()

    @classmethod
    def of(cls, supernet: Supernet) -> Self:
        """An attic in which nothing is removed yet."""
        state = {name: value.clone() for name, value in supernet.state().items()}
        return cls(supernet.architecture, supernet.tensor_axes(), state)

    def update(self, supernet: Supernet) -> None:
        """Note the present values of what is left."""
        left = cut(self.ceiling, supernet.architecture)
        for name, value in supernet.state().items():
            left.write(self.state[name], self.axes[name], value)

    def shrunk(self, supernet: Supernet, smaller: Architecture) -> Supernet:
        """A supernet like `supernet`, but of `smaller` (within the ceiling), with the last known values."""
        result = Supernet(smaller, supernet.gate_position, 0, supernet.accelerator, supernet.space)
        kept = cut(self.ceiling, smaller)
        result.module.load_state_dict(
            {name: kept.tensor(self.state[name], self.axes[name]) for name in result.module.state_dict()}
        )
        return result

    def momentum(self, buffers: Mapping[str, torch.Tensor], before: Architecture, after: Supernet) -> State:
        """The momentum `buffers` of the architecture `before` for what is in `after`; 0 for what came back."""
        held, kept = cut(self.ceiling, before), cut(self.ceiling, after.architecture)
        result: State = {}
        for name in [name for name, _ in after.module.named_parameters() if name in buffers]:
            whole = torch.zeros_like(self.state[name])
            held.write(whole, self.axes[name], buffers[name])
            result[name] = kept.tensor(whole, self.axes[name])
        return result

    def to_progress(self) -> dict[str, Any]:
        """What of the attic is JSON."""
        removed = [[one.name, list(one.channels), [[g, list(c)] for g, c in one.inside]] for one in self.removed]
        return {"ceiling": self.ceiling.to_dict(), "removed": removed}

    @classmethod
    def restore(cls, progress: Mapping[str, Any], state: State, supernet: Supernet) -> Self:
        """The inverse of `to_progress` and `state`; `supernet` is one of the same search."""
        ceiling = Architecture.from_dict(progress["ceiling"])
        whole = Supernet(ceiling, supernet.gate_position, 0, supernet.accelerator, supernet.space)
        removed = tuple(
            Removal(name, tuple(channels), tuple((group, tuple(indices)) for group, indices in inside))
            for name, channels, inside in progress["removed"]
        )
        return cls(ceiling, whole.tensor_axes(), state, removed)
