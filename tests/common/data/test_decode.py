import io

import numpy as np
import pytest
from PIL import Image

from common.data.decode import decode_images
from common.errors import DataError
from tests.common.data.files import picture


def decode(*encoded: bytes) -> np.ndarray:
    return decode_images(len(encoded), lambda index: encoded[index], lambda index: f"image {index}")[0]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_pixels_keep_their_place() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(decode(png(pixels))[0], pixels.transpose(2, 0, 1))


def test_grey_stays_one_channel_and_order_is_kept_over_many_chunks() -> None:
    images = decode(*(picture(index % 256, "L") for index in range(600)))
    assert images.shape == (600, 1, 4, 4)
    assert images[:, 0, 0, 0].tolist() == [index % 256 for index in range(600)]


def test_jpeg_and_transparency_become_colour() -> None:
    assert decode(picture(200, "RGB", kind="JPEG"))[0, :, 0, 0].tolist() == [200, 200, 200]
    assert decode(picture(100, "RGBA")).shape == (1, 3, 4, 4)


def test_a_palette_is_resolved_to_its_colours() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4).save(file, "PNG")
    assert decode(file.getvalue())[0, :, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("odd", "description"),
    [(picture(1, "L", 4), "image 1 is 4x4 grey"), (picture(1, "RGB", 5), "image 1 is 5x5 colour")],
)
def test_the_first_image_unlike_the_others_is_named(odd: bytes, description: str) -> None:
    with pytest.raises(DataError, match=f"{description} but image 0 is 4x4 colour"):
        decode(picture(1), odd, picture(2), odd)


@pytest.mark.parametrize("damaged", [b"", b"no picture", picture(1)[:50], picture(1, kind="JPEG")[:200]])
def test_an_image_that_does_not_decode_is_named(damaged: bytes) -> None:
    with pytest.raises(DataError, match="image 2 is not a readable PNG or JPEG"):
        decode(picture(1), picture(1), damaged, damaged)


def test_sixteen_bit_greys_are_refused_rather_than_clipped() -> None:
    with pytest.raises(DataError, match="convert it to 8-bit"):
        decode(png(np.full((4, 4), 60_000, dtype=np.uint16)))
