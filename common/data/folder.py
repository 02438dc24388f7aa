"""Data sets as folders of image files: train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png alone."""

from pathlib import Path

import numpy as np
import torch

from common.data.cache import cached, key_of_files, sized
from common.data.decode import Example, decode_images
from common.data.images import DataSet, Images
from common.data.split import split_test
from common.errors import DataError
from common.reading import Unreadable, read_limited

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_IMAGE_BYTES = 2**26
"""Of one file; the largest image that is decoded (MAX_SIDE) has less than that without any compression."""


def load_image_folder(path: Path, data_folder: Path, side: int = 0) -> DataSet:
    """Decode a folder of images; classes are numbered in the order of their folders' names.

    Without a `test` folder a fixed stratified fifth is held out. With `side` every image is resized and cropped to that
    many pixels.

    Raises DataError for a folder without images, a test class that has no training images, or an image that does
    not decode or differs in size from the others.
    """
    train, test = files_by_class(path)
    for name in test:
        if name not in train:
            raise DataError(f"{path / 'test' / name} has no counterpart in {path / 'train'}, so it cannot be learned")

    def build() -> DataSet:
        class_names = tuple(train)
        train_images, example = _decode(train, class_names, None, side)
        if test:
            test_images, _ = _decode(test, class_names, example, side)
        else:
            train_images, test_images = split_test(train_images, str(path))
        return DataSet(path.absolute().name, train_images, test_images, class_names, divided=not test)

    files = [file for part in (train, test) for members in part.values() for file in members]
    return cached(data_folder, sized(f"folder {path.absolute()}\n{key_of_files(files)}", side), build)


def files_by_class(path: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Class name -> its image files, of the training and of the test images; raises DataError where there are none."""
    has_parts = (path / "train").is_dir()
    train = _images_by_class(path / "train" if has_parts else path)
    test = _images_by_class(path / "test") if has_parts and (path / "test").is_dir() else {}
    return train, test


def _images_by_class(path: Path) -> dict[str, list[Path]]:
    """Class name -> its image files, both sorted; hidden folders and files of other types are passed over."""
    classes = {}
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            if not files:
                raise DataError(
                    f"{folder} holds no {', '.join(SUFFIXES)} files: every class needs images; remove a folder without"
                )
            classes[folder.name] = files
    if not classes:
        raise DataError(
            f"{path} holds no data set: it needs train-*.parquet files, or one folder of PNG or JPEG images per class"
        )
    return classes


def _decode(
    files_by_class: dict[str, list[Path]], class_names: tuple[str, ...], like: Example | None, side: int
) -> tuple[Images, Example]:
    files = [file for members in files_by_class.values() for file in members]
    labels = [class_names.index(name) for name, members in files_by_class.items() for _ in members]

    def read(index: int) -> bytes:
        try:
            return read_limited(files[index], MAX_IMAGE_BYTES)
        except Unreadable as error:
            raise DataError(f"{files[index]} cannot be read: {error}") from None

    images, example = decode_images(len(files), read, lambda index: str(files[index]), like, side)
    return Images(torch.from_numpy(images), torch.from_numpy(np.array(labels, dtype=np.int64))), example
