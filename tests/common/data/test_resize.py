"""Images of any size become images of one size, whichever library does it."""

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.images import DataSet, Images
from common.data.resize import covering_size, fit_data_set, fit_image, resize_and_crop


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("sides", "size", "expected"),
    [
        ((30, 40), (10, 10), (10, 13)),
        ((40, 30), (10, 10), (13, 10)),
        ((8, 8), (8, 8), (8, 8)),
        ((5, 20), (10, 8), (10, 40)),
        ((3, 2), (32, 32), (48, 32)),
        ((10, 25), (10, 10), (10, 25)),
    ],
)
def test_the_covering_size_by_hand(sides: tuple[int, int], size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert covering_size(*sides, size) == expected


@pytest.mark.parametrize("sides", [(40, 60), (17, 9), (5, 5), (32, 32)])
def test_resizing_is_what_pillow_does(sides: tuple[int, int]) -> None:
    images = noise(1, 1, *sides)
    found = resize_and_crop(images.float(), (16, 16))
    height, width = covering_size(*sides, (16, 16))
    whole = Image.fromarray(images[0, 0].numpy()).resize((width, height), Image.Resampling.BILINEAR)
    top, left = (height - 16) // 2, (width - 16) // 2
    expected = np.asarray(whole, np.float32)[top : top + 16, left : left + 16]
    assert found.shape == (1, 1, 16, 16)
    assert np.abs(found[0, 0].numpy() - expected).max() <= 1.0  # Pillow rounds to whole values, twice


@pytest.mark.parametrize("sides", [(40, 60), (17, 9), (5, 5)])
def test_a_picture_and_a_tensor_become_the_same_pixels(sides: tuple[int, int]) -> None:
    images = noise(2, 1, *sides)
    parts = Images(images, torch.tensor([0, 1]))
    data = fit_data_set(DataSet("noise", parts, parts, ("a", "b")), 16)
    assert data.input_shape == (1, 16, 16)
    picture = np.asarray(fit_image(Image.fromarray(images[0, 0].numpy()), 16), np.int16)
    assert np.abs(picture - data.train.images[0, 0].numpy()).max() <= 1


def test_images_of_the_right_size_are_left_alone() -> None:
    parts = Images(noise(2, 3, 16, 16), torch.tensor([0, 1]))
    data = DataSet("noise", parts, parts, ("a", "b"))
    assert fit_data_set(data, 16) is data
    assert fit_data_set(data, 0) is data
    picture = Image.fromarray(parts.images[0].permute(1, 2, 0).numpy())
    assert fit_image(picture, 16) is picture
