"""Costs as sums: a number times the sizes of some channel groups, for every block that has not vanished."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from common.models.description import Layer, Tensor

Term: TypeAlias = tuple[int, tuple[str, ...], str]
"""A number, the groups whose sizes it is multiplied by, and the block that it belongs to, or ""."""
Counted: TypeAlias = "Counter[tuple[tuple[str, ...], str]]"
"""Terms while they are gathered: the number of each."""


def mac_terms(layers: "Iterable[Layer]") -> Counted:
    """The multiply-accumulates of layers, for one image."""
    terms: Counted = Counter()
    for layer in layers:
        terms[(), layer.block] += layer.fixed_macs
        if layer.kind in ("batch_norm", "other"):
            continue
        each = math.prod(layer.kernel) * layer.positions
        for target in layer.target:
            if layer.fan_in or not layer.source:
                width = layer.fan_in or layer.fixed_width
                terms[(target.group,), layer.block] += width * target.spread * each
            else:
                for source in layer.source:
                    terms[(source.group, target.group), layer.block] += source.spread * target.spread * each
    return terms


def entry_terms(tensors: "Iterable[tuple[Tensor, int]]") -> Counted:
    """The entries of tensors, each times its number."""
    terms: Counted = Counter()
    for tensor, times in tensors:
        choices = [
            [(axis.group, axis.spread) for axis in dimension] or [("", size)]
            for size, dimension in zip(tensor.shape, tensor.dimensions, strict=True)
        ]
        for choice in product(*choices):
            groups = tuple(sorted(group for group, _ in choice if group))
            terms[groups, tensor.block] += times * math.prod(factor for _, factor in choice)
    return terms


def terms_of(counted: Mapping[tuple[tuple[str, ...], str], int]) -> tuple[Term, ...]:
    """What was gathered, as a sum."""
    return tuple((number, groups, block) for (groups, block), number in counted.items() if number)


def sum_of(terms: tuple[Term, ...], sizes: Mapping[str, int]) -> int:
    """The value of a sum in a network with these channels per group."""
    result = 0
    for number, groups, block in terms:
        if is_there(block, sizes):
            for group in groups:
                number *= sizes[group]
            result += number
    return result


def is_there(block: str, sizes: Mapping[str, int]) -> bool:
    """Whether the block ("" for none) has not vanished."""
    return not block or sizes.get(block, 1) > 0
