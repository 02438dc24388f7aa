"""Where images come from: one function, `load`, for every spelling of `--data`."""

import difflib
from dataclasses import replace
from pathlib import Path

from common.data.images import DataSet, Images
from common.data.split import split_stratified
from common.errors import DataError
from common.groups import DataSettings
from common.paths import user_path
from common.seeds import torch_generator

NAMES = ("digits", "fashion-mnist", "mnist", "cifar10", "cifar100")
DEFAULT_FOLDER = "~/.cache/feddac"
HUB = "hub:"
WORKS = f"{', '.join(NAMES)}, a folder, a .parquet file or {HUB}NAME"


def load(settings: DataSettings) -> DataSet:
    """The data set that `settings.data` names, cut down to `train_images` and `test_images` if they say so.

    A known name comes first, then `hub:NAME`, then a path: a Parquet file, a folder with Parquet files, or a folder
    with one folder of images per class (write ./cifar10 for a folder called like a known set).

    Raises DataError for a name or path that is neither, with the nearest known name, and for whatever makes the
    data set unreachable or unusable.
    """
    data = _load(settings)
    train, test = _some(data.train, settings.train_images), _some(data.test, settings.test_images)
    return replace(data, train=train, test=test)


def _load(settings: DataSettings) -> DataSet:
    folder = data_folder(settings)
    name = settings.data
    if name in ("", HUB):
        raise DataError(f"--data is {name!r}, which names no data set: it takes {WORKS}")
    if name == "digits":
        from common.data.digits import load_digits

        return load_digits()
    if name in NAMES:
        from common.data.download import load_download

        return load_download(name, folder)
    if name.startswith(HUB):
        from common.data.hub import load_hub

        return load_hub(name.removeprefix(HUB), folder)
    try:
        return _load_path(user_path(name), folder)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from error


def data_folder(settings: DataSettings) -> Path:
    """Where downloads and decoded images are kept."""
    return user_path(settings.data_folder or DEFAULT_FOLDER)


def _some(images: Images, wanted: int) -> Images:
    """A stratified choice of `wanted` images that no run's seed changes; all of them for 0 or if there are not more."""
    if not 0 < wanted < len(images):
        return images
    _, chosen = split_stratified(images.labels, wanted / len(images), torch_generator(0, "subset"))
    return images.subset(chosen)


def _load_path(path: Path, folder: Path) -> DataSet:
    if path.is_dir():
        if any(path.glob("*.parquet")):
            from common.data.parquet import load_parquet_folder

            return load_parquet_folder(path, folder)
        from common.data.folder import load_image_folder

        return load_image_folder(path, folder)
    if path.is_file() and path.suffix == ".parquet":
        from common.data.parquet import load_parquet_file

        return load_parquet_file(path, folder)
    if path.exists():
        raise DataError(f"{path} is neither a folder nor a .parquet file; --data takes {WORKS}")
    near = difflib.get_close_matches(str(path), NAMES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise DataError(f"there is no data set, folder or file called {str(path)!r}: {hint}--data takes {WORKS}")
