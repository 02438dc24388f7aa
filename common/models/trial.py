"""Does a network still run when it is reduced? A forward may rely on channel counts in ways that a trace cannot see."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from common.errors import ArchitectureError
from common.models.description import Block, ChannelGroup, Description
from common.models.reduce import reduced


def without_what_breaks(
    name: str, skeleton: nn.Module, description: Description, input_shape: tuple[int, int, int]
) -> Description:
    """The description with those groups frozen, and those blocks kept, without which the module does not run.

    Raises ArchitectureError, naming the network, if it does not run even then.
    """
    blocks = [block.name for block in description.blocks]
    if not _complaint(skeleton, description, input_shape, description.reducible, blocks):
        return description
    frozen = {}
    for group in description.reducible:
        complaint = _complaint(skeleton, description, input_shape, [group], [])
        if complaint:
            frozen[group.name] = f"reduced, the network does not run: {complaint}"
    left = [one for one in description.blocks if not _complaint(skeleton, description, input_shape, [], [one.name])]
    found = _limited(description, frozen, left)
    complaint = _complaint(skeleton, found, input_shape, found.reducible, [block.name for block in left])
    if complaint:
        raise ArchitectureError(f"{name} does not run when it is reduced: {complaint}")
    return found


def _limited(description: Description, frozen: dict[str, str], blocks: Iterable[Block]) -> Description:
    groups = tuple(
        replace(group, prunable=False, frozen=frozen[group.name]) if group.name in frozen else group
        for group in description.groups
    )
    return replace(description, groups=groups, blocks=tuple(blocks))


def _complaint(
    skeleton: nn.Module,
    description: Description,
    input_shape: tuple[int, int, int],
    groups: Iterable[ChannelGroup],
    blocks: Iterable[str],
) -> str:
    """What goes wrong with about half of the channels of `groups` and without `blocks`; "" if nothing does."""
    sizes = {**description.full_sizes, **{group.name: (group.size + 1) // 2 for group in groups}}
    sizes |= dict.fromkeys(blocks, 0)
    try:
        with torch.device("meta"), torch.no_grad():
            module = reduced(skeleton, description, sizes).eval()
            logits = module(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever a stranger's forward raises
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return "" if tuple(logits.shape) == (2, description.classes) else f"it returns {tuple(logits.shape)}"
