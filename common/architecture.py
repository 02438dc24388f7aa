"""An architecture as immutable data: the base network and, per channel group, the indices it keeps of it."""

import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Self

import torch
from torch import nn

from common.budget import Costs
from common.errors import ArchitectureError
from common.layout import Layout
from common.models import build_module, describe
from common.models.description import BaseNetwork, Description
from common.reading import Unreadable, parse_json
from common.seeds import seeded

MAX_BASE_PARAMS = 2**28
"""Parameters of the largest base network that is taken from a file or a message: 1 GiB in float32."""


@dataclass(frozen=True)
class Architecture:
    """What is built on a device. Hashable; equal architectures have equal kept channels of equal bases.

    `kept` holds, for every channel group of the base in its order, the ascending indices of the kept channels;
    `removed` the blocks that have vanished, in the order of the description. Groups inside these keep nothing.
    Raises ArchitectureError for indices that are not ascending, out of range, empty, or of a group that cannot be
    reduced, and for blocks that cannot vanish.
    """

    base: BaseNetwork
    kept: tuple[tuple[int, ...], ...]
    removed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        groups = self.description.groups
        if len(self.kept) != len(groups):
            raise ArchitectureError(f"{self.base.model} has {len(groups)} channel groups, not {len(self.kept)}")
        if self.removed != tuple(block.name for block in self.description.blocks if block.name in self.removed):
            raise ArchitectureError(f"{self.base.model} cannot do without the blocks {', '.join(self.removed):.100}")
        gone = _inside(self.description, self.removed)
        for group, indices in zip(groups, self.kept, strict=True):
            if group.name in gone:
                if indices:
                    raise ArchitectureError(f"{group.name} keeps channels of a block that has vanished")
                continue
            if not indices:
                raise ArchitectureError(f"{group.name} keeps no channel")
            if any(a >= b for a, b in pairwise(indices)):
                raise ArchitectureError(f"the channels kept of {group.name} are not in ascending order")
            if indices[0] < 0 or indices[-1] >= group.size:
                raise ArchitectureError(f"{group.name} has channels 0 to {group.size - 1}, not {indices[-1]}")
            if group.frozen and len(indices) != group.size:
                raise ArchitectureError(f"{group.name} cannot be reduced: {group.frozen}")

    @classmethod
    def full(cls, base: BaseNetwork) -> Self:
        """The base network itself."""
        return cls(base, tuple(tuple(range(group.size)) for group in describe(base).groups))

    @classmethod
    def with_kept(cls, base: BaseNetwork, kept: Mapping[str, Iterable[int]], removed: Iterable[str] = ()) -> Self:
        """An architecture that keeps `kept` of the groups named there, all of the others, and not the blocks `removed`.

        Of groups inside these blocks nothing is kept, whatever `kept` says.
        """
        description = describe(base)
        unknown = set(kept) - {group.name for group in description.groups}
        if unknown:
            raise ArchitectureError(f"{base.model} has no channel group {sorted(unknown)[0]!r:.60}")
        vanished = set(removed)
        if vanished - set(description.block_by_name):
            name = sorted(vanished - set(description.block_by_name))[0]
            raise ArchitectureError(f"{base.model} has no block {name!r:.60} that may vanish")
        order = tuple(block.name for block in description.blocks if block.name in vanished)
        sizes = {group.name: group.size for group in description.groups} | dict.fromkeys(_inside(description, order), 0)
        chosen = (() if size == 0 else kept.get(name, range(size)) for name, size in sizes.items())
        return cls(base, tuple(tuple(indices) for indices in chosen), order)

    @property
    def description(self) -> Description:
        """The description of the base network."""
        return describe(self.base)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images it takes."""
        return self.base.input_shape

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return self.base.classes

    @cached_property
    def indices(self) -> dict[str, tuple[int, ...]]:
        """Kept channel indices by group name."""
        return {group.name: kept for group, kept in zip(self.description.groups, self.kept, strict=True)}

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of kept channels by group name, and 0 for every block that has vanished."""
        return {**{name: len(indices) for name, indices in self.indices.items()}, **dict.fromkeys(self.removed, 0)}

    @cached_property
    def costs(self) -> Costs:
        """What it needs, for one image."""
        return self.description.costs(self.sizes)

    @property
    def layout(self) -> Layout:
        """The layout of its weights on the wire."""
        return _layout(self)

    def contains(self, other: "Architecture") -> bool:
        """Whether all that `other` keeps is kept here too (they must have the same base)."""
        return (
            self.base == other.base
            and set(self.removed) <= set(other.removed)
            and all(set(mine) >= set(theirs) for mine, theirs in zip(self.kept, other.kept, strict=True))
        )

    def build(self, seed: int | None = None) -> nn.Module:
        """A fresh module; with `seed` its initial weights depend on nothing else and no global state changes."""
        if seed is None:
            return build_module(self.base, self.sizes)
        with seeded(seed):
            return build_module(self.base, self.sizes)

    def build_from(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        """A module with these weights; raises RuntimeError, as torch does, if they do not fit."""
        module = self.build(0)
        module.load_state_dict(state)
        return module

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data; groups kept whole are left out, index lists are written as ranges such as `0-3,7`.

        `removed` is there only where blocks have vanished, and groups inside those are left out too.
        """
        full = self.description.full_sizes
        kept = {name: _ranges(indices) for name, indices in self.indices.items() if 0 < len(indices) < full[name]}
        base = {
            "model": self.base.model,
            "input_shape": list(self.base.input_shape),
            "classes": self.base.classes,
            "width": float(self.base.width),
            "stem_stride": self.base.stem_stride,
            "strides": list(self.base.strides),
        }
        return {"base": base, "kept": kept, **({"removed": list(self.removed)} if self.removed else {})}

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """The inverse of `to_dict`, raises ArchitectureError for anything it would not have written.

        Keys beside `base`, `kept` and `removed` belong to the file that the architecture is part of: they are not
        looked at.
        """
        try:
            base = _typed(data["base"], dict)
            unknown = set(base) - {field.name for field in fields(BaseNetwork)}
            if unknown:
                raise ValueError(f"unknown key {reprlib.repr(sorted(unknown)[0])}")
            network = BaseNetwork(
                model=_typed(base["model"], str),
                input_shape=_whole_numbers(base["input_shape"], 3),
                classes=_typed(base["classes"], int),
                width=float(_typed(base["width"], (int, float))),
                stem_stride=_typed(base["stem_stride"], int),
                strides=_whole_numbers(base["strides"], 7),
            )
            kept = {_typed(name, str): _typed(text, str) for name, text in data["kept"].items()}
            removed = [_typed(name, str) for name in _typed(data.get("removed", []), list)]
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ArchitectureError(f"this is not an architecture: {type(error).__name__}: {error}") from None
        description = describe(network)
        sizes = description.full_sizes
        if description.costs(sizes).params > MAX_BASE_PARAMS:
            raise ArchitectureError(f"the base network would have more than {MAX_BASE_PARAMS:,} parameters")
        chosen = {name: _parse_ranges(text, sizes.get(name, 0)) for name, text in kept.items()}
        return cls.with_kept(network, chosen, removed)

    def to_json(self) -> str:
        """Compact JSON, the same for equal architectures."""
        return json.dumps(self.to_dict(), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; raises ArchitectureError."""
        try:
            data = parse_json(text)
        except Unreadable as error:
            raise ArchitectureError(f"the architecture cannot be read: {error}") from None
        return cls.from_dict(data)


# Equal architectures arrive anew with every message.
@lru_cache(maxsize=256)
def _layout(architecture: Architecture) -> Layout:
    return architecture.description.layout(architecture.sizes)


def _inside(description: Description, blocks: Iterable[str]) -> set[str]:
    """The channel groups inside the blocks."""
    known = (description.block_by_name[name] for name in blocks if name in description.block_by_name)
    return {group for block in known for group in block.groups}


def _ranges(indices: tuple[int, ...]) -> str:
    """`(0, 1, 2, 7)` -> `"0-2,7"`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _parse_ranges(text: str, size: int) -> tuple[int, ...]:
    """`"0-2,7"` -> `(0, 1, 2, 7)`; never more than `size` indices, whatever a stranger wrote."""
    indices: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if match is None:
            raise ArchitectureError(f"channel indices are written as 0-3,7, not {text[:40]!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= size:
            raise ArchitectureError(f"channel {last} is out of range: the group has {size}")
        if last < first or (indices and first <= indices[-1]):
            raise ArchitectureError(f"channel indices must ascend, {part!r} does not")
        indices.extend(range(first, last + 1))
    return tuple(indices)


def _typed(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"unexpected {reprlib.repr(value)}")
    return value


def _whole_numbers(values: Any, count: int) -> Any:
    numbers = tuple(_typed(value, int) for value in _typed(values, list))
    if len(numbers) != count:
        raise ValueError(f"expected {count} numbers, not {len(numbers)}")
    return numbers
