"""Where images come from: one function, `load`, for every spelling of `--data`."""

import difflib
from dataclasses import replace
from pathlib import Path

from common.data.function import is_function, load_function
from common.data.given import given
from common.data.images import DataSet, Images
from common.data.resize import fit_data_set
from common.data.saved import is_saved, load_saved, saved_files
from common.data.split import split_stratified
from common.errors import DataError
from common.groups import DataSettings
from common.paths import user_path
from common.seeds import torch_generator

HUB_NAMES = {"cinic10": "flwrlabs/cinic10"}
"""Sets that we call by a short name, and what the hub calls them."""
NAMES = ("digits", "fashion-mnist", "mnist", "cifar10", "cifar100", *HUB_NAMES)
DEFAULT_FOLDER = "~/.cache/feddac"
HUB = "hub:"
WORKS = f"{', '.join(NAMES)}, a folder, a .parquet file, package.module:function or {HUB}NAME"


def load(settings: DataSettings) -> DataSet:
    """The data set that `settings.data` names, cut down to `train_images` and `test_images` if they say so.

    A known name comes first, then `hub:NAME`, a function, and a path: a Parquet file, a folder with Parquet files, one
    that Hugging Face's `save_to_disk` wrote, or one with a folder of images per class (write ./cifar10 for a folder
    called like a known set). With `image_size` every image is resized and cropped to it. What this process was given
    for these settings is taken as it is.

    Raises DataError for a name or path that is neither, with the nearest known name, and for whatever makes the
    data set unreachable or unusable.
    """
    if (here := given(settings)) is not None:
        return here
    data = fit_data_set(_load(settings), settings.image_size)
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
    if name.startswith(HUB) or name in HUB_NAMES:
        from common.data.hub import load_hub

        return load_hub(HUB_NAMES.get(name, name.removeprefix(HUB)), folder, settings.image_size)
    if name in NAMES:
        from common.data.download import load_download

        return load_download(name, folder)
    if is_function(name):
        return load_function(name, settings.image_size)
    try:
        return _load_path(user_path(name), folder, settings.image_size)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from error


def files_of(name: str) -> list[Path]:
    """The files of the user's own that `load` reads for `name`; none for a known name, the hub's and a function.

    Raises DataError for a path that is no data set, OSError for one that cannot be read.
    """
    if not name or name in NAMES or name.startswith(HUB) or is_function(name):
        return []
    path = user_path(name)
    if not path.is_dir():
        return [path]
    if any(path.glob("*.parquet")):
        from common.data.parquet import files_in_parts

        train, test = files_in_parts(path)
        return train + test
    if is_saved(path):
        return saved_files(path)
    from common.data.folder import files_by_class

    return [file for part in files_by_class(path) for files in part.values() for file in files]


def data_folder(settings: DataSettings) -> Path:
    """Where downloads and decoded images are kept."""
    return user_path(settings.data_folder or DEFAULT_FOLDER)


def _some(images: Images, wanted: int) -> Images:
    """A stratified choice of `wanted` images that no run's seed changes; all of them for 0 or if there are not more."""
    if not 0 < wanted < len(images):
        return images
    _, chosen = split_stratified(images.labels, wanted / len(images), torch_generator(0, "subset"))
    return images.subset(chosen)


def _load_path(path: Path, folder: Path, side: int) -> DataSet:
    if path.is_dir():
        if any(path.glob("*.parquet")):
            from common.data.parquet import load_parquet_folder

            return load_parquet_folder(path, folder, side)
        if is_saved(path):
            return load_saved(path, folder, side)
        from common.data.folder import load_image_folder

        return load_image_folder(path, folder, side)
    if path.is_file() and path.suffix == ".parquet":
        from common.data.parquet import load_parquet_file

        return load_parquet_file(path, folder, side)
    if path.exists():
        raise DataError(f"{path} is neither a folder nor a .parquet file; --data takes {WORKS}")
    near = difflib.get_close_matches(str(path), NAMES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise DataError(f"there is no data set, folder or file called {str(path)!r}: {hint}--data takes {WORKS}")
