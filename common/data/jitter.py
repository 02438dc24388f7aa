"""Colours at random, image by image, a whole batch at once: brightness, contrast, saturation, hue.

What torchvision's ColorJitter does with 0.5 for each of the four, which the AutoFLIP program asks for (`--randjit
0.5`), except that the four come in this order and not in one drawn at random.
"""

import torch
from torch import Tensor

STRENGTH = 0.5
"""Factors are drawn from 1 - STRENGTH to 1 + STRENGTH, hues are turned by at most STRENGTH of the circle either way."""

GREY = (0.2989, 0.587, 0.114)
"""What red, green and blue weigh in grey (ITU-R BT.601, as torchvision rounds it)."""


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) of values 0 to 255, float32, each with factors of its own; of grey ones hues do not matter.

    `generator` may live on another device than `images`.
    """
    draws = torch.rand((4, len(images), 1, 1, 1), generator=generator, device=generator.device).to(images.device)
    brightness, contrast, saturation = 1 + STRENGTH * (2 * draws[:3] - 1)
    values = _mixed(images.float() / 255, torch.zeros((), device=images.device), brightness)
    values = _mixed(values, _grey(values).mean(dim=(1, 2, 3), keepdim=True), contrast)
    if images.shape[1] == 3:
        values = _mixed(values, _grey(values), saturation)
        values = turned(values, STRENGTH * (2 * draws[3] - 1))
    return values * 255


def turned(images: Tensor, turn: Tensor) -> Tensor:
    """Images (N, 3, H, W) of values 0 to 1 with all hues turned by `turn` (N, 1, 1, 1) of the circle.

    By way of hue, saturation and value (Smith 1978, "Color gamut transform pairs").
    """
    value, red_green_blue = images.amax(1, keepdim=True), images.unbind(1)
    chroma = value - images.amin(1, keepdim=True)
    red, green, blue = (one.unsqueeze(1) for one in red_green_blue)
    span = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / span,
        torch.where(value == green, 2 + (blue - red) / span, 4 + (red - green) / span),
    )
    sixths = sixths + 6 * turn
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    place = (offsets + sixths) % 6
    return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    weights = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _mixed(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`factor` (N, 1, 1, 1) of the images and the rest of the other, kept between 0 and 1."""
    return (factor * images + (1 - factor) * other).clamp(0, 1)
