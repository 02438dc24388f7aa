"""Data sets that a user's own function returns: `--data package.module:function`.

The function takes no argument and returns training and test images, as a pair or as a mapping with `train` and `test`;
without test images a fixed stratified fifth is held out. Either part is a Hugging Face data set, or anything with
`len` and `[]` whose items are (image, label), as torchvision's are. An image is a Pillow picture or an array of uint8:
(H, W), (C, H, W) or (H, W, C). Class names come from an attribute `classes`, or from the features of a Hugging Face
data set.

A name that came over the wire is not imported because a stranger said so: only functions that the owner of this
machine allows are called, those in the environment variable FEDDAC_DATA_FUNCTIONS. The command line and the API put
there what their own user names.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common.data.class_names import numbered
from common.data.decode import CHANNELS_OF_MODE
from common.data.images import DataSet, Images
from common.data.resize import fit_image
from common.data.split import split_test
from common.errors import DataError

FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
ALLOWED = "FEDDAC_DATA_FUNCTIONS"


def is_function(name: str) -> bool:
    """Whether `--data` names a function."""
    return FUNCTION.fullmatch(name) is not None


def allow(name: str) -> None:
    """The user of this process and of those that it starts named this function."""
    allowed = _allowed()
    if is_function(name) and name not in allowed:
        os.environ[ALLOWED] = ",".join([*allowed, name])


def load_function(name: str, side: int = 0) -> DataSet:
    """What the function `name` returns; with `side`, every image resized and cropped to that many pixels.

    Raises DataError for a function that is not allowed, is not there, fails, or returns something else.
    """
    if name not in _allowed():
        raise DataError(
            f"{name} is a function, and this machine calls only those that its owner allows: set {ALLOWED}={name} here"
        )
    module, _, function = name.partition(":")
    try:
        with _working_folder_last():
            returned = getattr(import_module(module), function)()
    except Exception as error:  # whatever a stranger's function raises
        raise DataError(f"--data {name} failed: {type(error).__name__}: {error}") from error
    if isinstance(returned, DataSet):
        return returned
    train, test = _parts(returned, name)
    class_names = _class_names(train)
    train_images = _images(train, f"{name}, training", side)
    test_images = None if test is None else _images(test, f"{name}, test", side)
    if test_images is None:
        train_images, test_images = split_test(train_images, name)
    if not class_names:
        class_names = numbered(train_images, test_images)
    return DataSet(name, train_images, test_images, class_names, divided=test is None)


def _allowed() -> list[str]:
    return [one for one in os.environ.get(ALLOWED, "").split(",") if one]


@contextmanager
def _working_folder_last() -> Iterator[None]:
    """A module in the working folder is found too, after everything that is installed."""
    sys.path.append(str(Path.cwd()))
    try:
        yield
    finally:
        sys.path.pop()


def _parts(returned: Any, name: str) -> tuple[Any, Any]:
    if isinstance(returned, Mapping) and "train" in returned:
        return returned["train"], returned.get("test")
    if isinstance(returned, tuple) and len(returned) == 2:
        return returned
    raise DataError(
        f"--data {name} returned {type(returned).__name__}: it must be (train, test) or a mapping with train and test"
    )


def _class_names(part: Any) -> tuple[str, ...]:
    features = getattr(part, "features", None)
    if isinstance(features, Mapping):
        labels = next((features[key] for key in ("label", "labels", "fine_label") if key in features), None)
        return tuple(map(str, getattr(labels, "names", None) or ()))
    return tuple(map(str, getattr(part, "classes", None) or ()))


def _images(part: Any, where: str, side: int) -> Images:
    """Every item as pixels and label; raises DataError naming the first that is neither."""
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    for index in range(len(part)):
        image, label = _image_and_label(part[index], f"{where} item {index}")
        pixels.append(_pixels(image, f"{where} item {index}", side))
        labels.append(int(label))
        if pixels[-1].shape != pixels[0].shape:
            raise DataError(f"{where} item {index} differs in size or colour from the first: give --image-size N")
    if not pixels:
        raise DataError(f"{where} images are none")
    return Images(torch.from_numpy(np.stack(pixels)), torch.tensor(labels, dtype=torch.int64))


def _image_and_label(item: Any, where: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        images = [item[key] for key in ("image", "img") if key in item]
        labels = [item[key] for key in ("label", "labels", "fine_label") if key in item]
        if images and labels:
            return images[0], labels[0]
    elif isinstance(item, Sequence) and len(item) == 2:
        return item[0], item[1]
    raise DataError(f"{where} is no pair of image and label")


def _pixels(image: Any, where: str, side: int) -> np.ndarray:
    """uint8 of shape (C, H, W)."""
    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3):
            raise DataError(
                f"{where} is {array.dtype} of shape {array.shape}: images are pictures or uint8 of 2 or 3 axes, "
                "without transforms, for FedDAC normalises them itself"
            )
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
            array = array.transpose(1, 2, 0)
        image = Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)
    mode = CHANNELS_OF_MODE.get(image.mode)
    if mode is None:
        raise DataError(f"{where} has the pixel format {image.mode}: convert it to 8-bit grey or RGB")
    converted = image.convert(mode)
    pixels = np.asarray(fit_image(converted, side) if side else converted)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
