"""Data sets that Hugging Face's `save_to_disk` wrote, as `flwr-datasets create` does for every device."""

from pathlib import Path
from typing import Any

from common.data.cache import cached, key_of_files, sized
from common.data.images import DataSet
from common.errors import DataError

MARKS = ("state.json", "dataset_dict.json")


def is_saved(path: Path) -> bool:
    """Whether the folder holds one data set, or several splits, that were saved to disk."""
    return any((path / mark).is_file() for mark in MARKS)


def saved_files(path: Path) -> list[Path]:
    """The files that were written by `save_to_disk`; the library leaves others beside them when they are read."""
    return [
        file for file in path.rglob("*") if file.suffix in (".json", ".arrow") and not file.name.startswith("cache-")
    ]


def load_saved(path: Path, data_folder: Path, side: int = 0) -> DataSet:
    """Its splits `train` and `test`; of a single data set, or without `test`, a fixed stratified fifth is held out.

    Raises DataError for a folder that is damaged, has no `train`, or no usable columns.
    """
    import datasets

    from common.data.hub import encoded
    from common.data.table import Source, build_data_set, read_source

    try:
        loaded: Any = datasets.load_from_disk(str(path))
    except Exception as error:  # a damaged Arrow file, a missing one, an unknown feature: each has a type of its own
        raise DataError(f"{path} could not be loaded as a saved data set: {type(error).__name__}: {error}") from error
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    if "train" not in splits:
        raise DataError(f"{path} has no split called train, only {', '.join(splits)}")

    def build() -> DataSet:
        parts: list[list[Source]] = []
        for part in ("train", "test"):
            # `select` before a save leaves an index beside the whole table
            split = encoded(splits[part]).flatten_indices() if part in splits else None
            parts.append([] if split is None else [read_source(f"{path} {part}", split.data.table)])
        return build_data_set(path.absolute().name, parts[0], parts[1], side)

    files = [file for file in path.rglob("*") if file.is_file()]
    return cached(data_folder, sized(f"saved {path.absolute()}\n{key_of_files(files)}", side), build)
