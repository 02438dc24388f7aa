"""Normalisation and augmentation of whole batches, without a loop over images."""

import torch
from torch import Tensor

from common.data.jitter import jitter
from common.errors import DataError

AUGMENTATIONS = ("none", "crop", "crop+flip", "crop+flip+cutout", "flip+jitter")


def resolve_augment(augment: str, channels: int) -> str:
    """The augmentation that `auto` stands for: crop+flip for colour (3 channels), else none.

    Greyscale sets are mostly digits and letters, which a flip would turn into other signs; and random crops cost them
    more than they bring in trainings as short as the default ones (docs/search.md).
    Raises DataError for an unknown name.
    """
    if augment == "auto":
        return "crop+flip" if channels == 3 else "none"
    if augment not in AUGMENTATIONS:
        raise DataError(f"unknown augmentation {augment!r}: use auto, {', '.join(AUGMENTATIONS)}")
    return augment


def padding(side: int) -> int:
    """Pixels of black added on each edge before a random crop: 4 at 32 pixels, in proportion elsewhere, at least 1."""
    return max(1, side // 8)


def scale_and_shift(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """What values 0 to 255 are multiplied by, and what is then added, to normalise them: two of (1, C, 1, 1), float32.

    (x / 255 - mean) / std as one multiplication and one addition; `mean` and `std` are those of `Preprocessor`.
    """
    deviation = torch.where(std > 0, std, 1).double()
    scale = (1 / (255 * deviation)).float().view(1, -1, 1, 1)
    return scale, (-mean.double() / deviation).float().view(1, -1, 1, 1)


class Preprocessor:
    """Turns stored images into what a network trains or is evaluated on.

    mean, std: float, (C,), of images scaled to 0..1; a channel of zero deviation is only shifted.
    augment: auto, none, crop, crop+flip, crop+flip+cutout or flip+jitter.

    Both methods take (N, C, H, W) with values 0 to 255 on any device, and return float32 on that device, in
    channels_last memory format when C > 1.
    """

    def __init__(self, mean: Tensor, std: Tensor, augment: str) -> None:
        self.mean, self.std = mean, std
        self._scale, self._shift = scale_and_shift(mean, std)
        self.augment = resolve_augment(augment, len(mean))

    def train_batch(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented and normalised images; each is cropped or coloured by its own draw, and half of them are mirrored.

        With cutout a square of each, half as wide as the image, is the mean colour.
        `generator` may live on another device than `images`: a CPU generator gives the same batch everywhere.
        """
        if self.augment == "none":
            return self.eval_batch(images)
        if self.augment == "flip+jitter":
            return self._normalise(jitter(_flip(images, generator), generator))
        prepared = self._normalise(_crop(images, generator, flip="flip" in self.augment))
        return cut_out(prepared, max(images.shape[2:]) // 2, generator) if "cutout" in self.augment else prepared

    def eval_batch(self, images: Tensor) -> Tensor:
        """Normalised images."""
        return self._normalise(images)

    def _normalise(self, images: Tensor) -> Tensor:
        # Kept on the device of the last batch: a copy to a GPU for every batch would wait for the queue.
        self._scale = scale = self._scale.to(images.device)
        self._shift = shift = self._shift.to(images.device)
        layout = torch.channels_last if images.shape[1] > 1 else torch.contiguous_format
        result = images.to(torch.float32, memory_format=layout, copy=True)
        return result.mul_(scale).add_(shift)


def cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Normalised images (N, C, H, W) with a square of `side` pixels of each set to zero, which is the mean.

    Its centre is any pixel, so that some of it may lie outside (DeVries and Taylor 2017, arXiv:1708.04552).
    """
    inside = torch.ones(len(images), 1, *images.shape[2:], dtype=torch.bool)
    for dimension, length in ((2, images.shape[2]), (3, images.shape[3])):
        centre = torch.randint(length, (len(images), 1, 1, 1), generator=generator, device=generator.device).cpu()
        along = torch.arange(length).view([-1 if one == dimension else 1 for one in range(4)])
        inside &= (along >= centre - side // 2) & (along < centre - side // 2 + side)
    return images.clone().masked_fill_(inside.to(images.device), 0)


def _crop(images: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Every image shifted by up to its padding (black comes in at the edges) and, with `flip`, half of them mirrored.

    Every possible crop is a window of the padded batch; unfolding makes them a view, and one index picks and copies
    a window of each image.
    """
    count, _, height, width = images.shape
    top_room, left_room = padding(height), padding(width)
    source = generator.device
    top = torch.randint(2 * top_room + 1, (count,), generator=generator, device=source).to(images.device)
    left = torch.randint(2 * left_room + 1, (count,), generator=generator, device=source).to(images.device)
    padded = torch.nn.functional.pad(images, (left_room, left_room, top_room, top_room))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(count, device=images.device), :, top, left]
    return _flip(cropped, generator) if flip else cropped


def _flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images mirrored."""
    mirrored = torch.rand((len(images), 1, 1, 1), generator=generator, device=generator.device) < 0.5
    return torch.where(mirrored.to(images.device), images.flip(3), images)
