"""Images of any size to one size: resized to just cover it, keeping their proportions, and cut at the centre.

Bilinear with antialiasing, which Pillow and PyTorch compute alike.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from common.data.images import DataSet, Images


def fit_image(image: Image.Image, side: int) -> Image.Image:
    """A picture of grey or colour, `side` pixels wide and high; the picture itself if it is."""
    height, width = covering_size(image.height, image.width, (side, side))
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return image if image.size == (side, side) else image.crop((left, top, left + side, top + side))


def fit_data_set(data: DataSet, side: int) -> DataSet:
    """The data set with all images `side` pixels wide and high; the data set itself if they are, or for 0."""
    if side == 0 or data.input_shape[1:] == (side, side):
        return data
    return replace(data, train=_fit(data.train, side), test=_fit(data.test, side))


def _fit(images: Images, side: int) -> Images:
    parts = [resize_and_crop(part.float(), (side, side)) for part in torch.split(images.images, 256)]
    return Images(torch.cat([part.add(0.5).clamp(0, 255).to(torch.uint8) for part in parts]), images.labels)


def resize_and_crop(images: Tensor, size: Sequence[int]) -> Tensor:
    """Float images (N, C, H, W) resized to just cover (height, width), keeping their proportions, and cut to it.

    Bilinear with antialiasing; images of the right size are returned as they are.
    """
    height, width = size
    covering = covering_size(images.shape[2], images.shape[3], size)
    if covering != (images.shape[2], images.shape[3]):
        images = F.interpolate(images, covering, mode="bilinear", antialias=True, align_corners=False)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return images[:, :, top : top + height, left : left + width]


def covering_size(height: int, width: int, size: Sequence[int]) -> tuple[int, int]:
    """The smallest size of the proportions of `height` x `width` that covers `size`, rounded half up.

    >>> covering_size(30, 40, (10, 10)), covering_size(8, 8, (8, 8)), covering_size(5, 20, (10, 8))
    ((10, 13), (8, 8), (10, 40))
    """
    # In float32, as the exported graph computes it.
    factor = max(torch.tensor(size[0]) / height, torch.tensor(size[1]) / width)
    sides = [int(torch.floor(factor * side + 0.5)) for side in (height, width)]
    return max(sides[0], size[0]), max(sides[1], size[1])
