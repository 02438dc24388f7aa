"""Small searches that take a second: random images, the little convolutional network or a slim MobileNetV2."""

import pytest
import torch

from common.data.augment import Preprocessor
from common.data.images import Images
from common.learning import Feed


@pytest.fixture
def feeds() -> tuple[Feed, Feed]:
    """Forty training and twenty validation images of 8x8 whose class is where they are bright."""
    return _feed(40, 0), _feed(20, 1)


def _feed(count: int, seed: int) -> Feed:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        images[index, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 150
    return Feed(Images(images, labels), Preprocessor(torch.tensor([0.2]), torch.tensor([0.25]), "none"), 8)
