"""PNG and JPEG files to one uint8 array, in threads."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from common.data.resize import fit_image
from common.errors import DataError

# Greyscale stays one channel and colour three; transparency and palettes are resolved to colour.
CHANNELS_OF_MODE = {"1": "L", "L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB", "PA": "RGB", "CMYK": "RGB"}
CHUNK = 256

MAX_SIDE = 4096
"""Pixels; no network here takes larger images (`common.models`)."""


@dataclass(frozen=True)
class Example:
    """The image all others must be like: where it stands and its shape (C, H, W)."""

    where: str
    shape: tuple[int, int, int]


def decode_images(
    count: int, read: Callable[[int], bytes], where: Callable[[int], str], like: Example | None = None, side: int = 0
) -> tuple[np.ndarray, Example]:
    """Decode `count` images (at least one) to uint8 (N, C, H, W).

    read: the encoded bytes of image i. where: how a message names image i. like: an image of another part of the
    same data set; without it the first image is the example. side: resize and crop every image to this many pixels
    (see `common.data.resize`), 0 for images that have one size already. Returns the array and that example.

    Raises DataError for the first image that does not decode or differs from the example in size or channels.
    """
    first = _decode(read(0), where(0), side)
    example = like or Example(where(0), first.shape)
    try:
        images = np.empty((count, *example.shape), dtype=np.uint8)
    except MemoryError:
        raise DataError(f"{count:,} images of {_describe(example.shape)} do not fit into memory") from None

    def decode_chunk(start: int) -> None:
        for index in range(start, min(start + CHUNK, count)):
            image = _decode(read(index), where(index), side)
            if image.shape != example.shape:
                raise DataError(
                    f"{where(index)} is {_describe(image.shape)} but {example.where} is {_describe(example.shape)}: "
                    "all must be grey or all colour, and of one size, to which --image-size N brings them"
                )
            images[index] = image

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        # In order, so that of several bad images the first is the one named.
        chunks = [pool.submit(decode_chunk, start) for start in range(0, count, CHUNK)]
        try:
            for chunk in chunks:
                chunk.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return images, example


def _decode(encoded: bytes, where: str, side: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            mode = CHANNELS_OF_MODE.get(image.mode)
            if mode is None:
                raise DataError(f"{where} has the pixel format {image.mode}: convert it to 8-bit grey or RGB")
            if max(image.size) > MAX_SIDE:  # by its header, before a pixel is decoded
                raise DataError(
                    f"{where} is {image.width}x{image.height}: make images at most {MAX_SIDE} pixels wide and high"
                )
            converted = image if image.mode == mode else image.convert(mode)
            pixels = np.asarray(fit_image(converted, side) if side else converted)
    except DataError:
        raise
    except Exception as error:  # Damaged files make the decoders raise nearly anything.
        raise DataError(f"{where} is not a readable PNG or JPEG image: {type(error).__name__}") from error
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _describe(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'colour'}"
