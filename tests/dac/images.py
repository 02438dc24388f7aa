"""Images that take a moment to learn."""

import torch

from common.data.augment import Preprocessor
from common.data.images import Images
from common.learning import Feed


def bright_corners(count: int, seed: int) -> Feed:
    """Images of 8x8 in four classes: a class is the corner that is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        images[index, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 150
    return Feed(Images(images, labels), Preprocessor(torch.tensor([0.2]), torch.tensor([0.25]), "none"), 8)
