"""A loss for devices that lack classes: what happens to the logits of classes without an image.

Without it, every step on a device with two classes also pushes the other classes' logits down, and the average over
such devices knows no class well.
"""

from collections.abc import Callable

import torch

MASKS = {"exclude": float("-inf"), "zero": 0.0}
"""The logit of an absent class: out of the softmax (Li and Zhan 2021), or zero (HeteroFL, Diao et al. 2021)."""


def mask_for(labels: torch.Tensor, classes: int, masked_loss: str) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """A function of logits (B, classes) for a device that has `labels`; None where nothing is to be masked."""
    if masked_loss == "none":
        return None
    absent = torch.ones(classes, dtype=torch.bool)
    absent[torch.unique(labels.cpu())] = False
    if not absent.any():
        return None
    return lambda logits: logits.masked_fill(absent.to(logits.device), MASKS[masked_loss])
