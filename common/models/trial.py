"""Does a network run in training mode, and when it is reduced?

A forward may depend on the mode, and rely on channel counts in ways that a trace cannot see.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from common.errors import ArchitectureError
from common.models.description import Block, ChannelGroup, Description
from common.models.reduce import reduced
from common.models.usable import first_line
from common.seeds import seeded


@contextmanager
def same_draws() -> Iterator[None]:
    """What a network draws in here, from torch or Python, is the same every time, and nothing outside changes."""
    before = random.getstate()
    random.seed(0)
    try:
        with seeded(0):
            yield
    finally:
        random.setstate(before)


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


def require_training(name: str, skeleton: nn.Module, input_shape: tuple[int, int, int], classes: int) -> None:
    """Raises ArchitectureError, naming the network, unless it returns logits in training mode, too."""
    image = torch.zeros(2, *input_shape, device="meta")
    try:
        with torch.no_grad(), same_draws():
            returned = skeleton.train()(image)
    except Exception as error:  # whatever a stranger's forward raises
        raise ArchitectureError(
            f"{name} cannot be trained on images of shape {input_shape}: {first_line(error)}"
        ) from None
    finally:
        skeleton.eval()
    if not isinstance(returned, torch.Tensor) or tuple(returned.shape) != (2, classes):
        found = f"shape {tuple(returned.shape)}" if isinstance(returned, torch.Tensor) else type(returned).__name__
        raise ArchitectureError(
            f"in training mode the forward of {name} returns {found} for 2 images, not (images, classes) as in "
            "evaluation mode; leave out what it returns beside the logits"
        )


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
    """What goes wrong with about half of the channels of `groups` and without `blocks`; "" if nothing does.

    First for answers, then in training, in which the forward may do more.
    """
    sizes = {**description.full_sizes, **{group.name: (group.size + 1) // 2 for group in groups}}
    sizes |= dict.fromkeys(blocks, 0)
    try:
        with torch.device("meta"):
            module = reduced(skeleton, description, sizes)
    except Exception as error:  # whatever a stranger's `reset_parameters` raises
        return first_line(error)
    image = torch.zeros(2, *input_shape, device="meta")
    for mode in ("", "in training mode, "):
        try:
            with torch.no_grad(), same_draws():
                logits = module.train(bool(mode))(image)
        except Exception as error:  # whatever a stranger's forward raises
            return mode + first_line(error)
        if tuple(logits.shape) != (2, description.classes):
            return f"{mode}it returns {tuple(logits.shape)}"
    return ""
