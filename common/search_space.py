"""What a search may remove: the published search space (`inner`) or every channel and block (`all`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from common.groups import SearchSettings
from common.models.description import FLOOR_CHANNELS, Block, ChannelGroup, Description

FAST_MULTIPLE = 8
"""Widths that ONNX Runtime runs fast are multiples of this (docs/latency.md)."""


@dataclass(frozen=True)
class SearchSpace:
    """`kind` is inner (channels inside blocks), all (every group, blocks whole) or uniform (every group, all alike).

    A reduced group keeps at least `floor` channels, and a multiple of `multiple`; a group that is not larger than that
    keeps all it has.
    """

    kind: str = "inner"
    floor: int = FLOOR_CHANNELS
    multiple: int = 1

    @classmethod
    def of(cls, settings: SearchSettings) -> Self:
        """The search space of the settings.

        Where they leave the multiple open, a floor below the fast multiple asks for widths that reach it.
        """
        if settings.recipe == "uniform":
            return cls("uniform", floor=1)
        published = settings.search_space == "inner" or settings.recipe == "paper"
        fast = min(FAST_MULTIPLE, settings.channel_floor)
        multiple = settings.channel_multiple or (1 if published else fast)
        return cls(settings.search_space, settings.channel_floor, multiple)

    def groups(self, description: Description) -> tuple[ChannelGroup, ...]:
        """The channel groups that may be narrowed."""
        return description.prunable if self.kind == "inner" else description.reducible

    def blocks(self, description: Description) -> tuple[Block, ...]:
        """The blocks that may vanish."""
        return description.blocks if self.kind == "all" else ()

    def least(self, group: ChannelGroup) -> int:
        """Fewest channels that the group may keep."""
        return min(group.size, -(-self.floor // self.multiple) * self.multiple)

    def next_size(self, size: int) -> int:
        """The largest allowed size below `size`: a multiple.

        >>> [SearchSpace(multiple=4).next_size(size) for size in (9, 8, 4)]
        [8, 4, 0]
        """
        return (size - 1) // self.multiple * self.multiple

    def floor_sizes(self, description: Description) -> Mapping[str, int]:
        """The sizes of the smallest architecture."""
        least = {group.name: self.least(group) for group in self.groups(description)}
        return {**description.full_sizes, **least, **{block.name: 0 for block in self.blocks(description)}}
