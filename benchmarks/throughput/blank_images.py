"""Images enough for large fleets: two of 4x4 pixels for each of 10,000 devices, and some for the server.

And 4,000 of CIFAR-10's shape, for devices that really train.
"""

import torch

from common.data.images import DataSet, Images


def blank() -> DataSet:
    """32,000 training and 100 test images of ten classes."""

    def images(count: int) -> Images:
        return Images(torch.zeros(count, 1, 4, 4, dtype=torch.uint8), torch.arange(count) % 10)

    return DataSet("blank", images(32_000), images(100), tuple(map(str, range(10))))


def coloured() -> DataSet:
    """4,000 training and 100 test images of ten classes, of noise."""
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return Images(pixels, torch.arange(count) % 10)

    return DataSet("coloured", images(4_000), images(100), tuple(map(str, range(10))))
