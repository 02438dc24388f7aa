"""Data sets in Parquet files, as Hugging Face publishes them: one file, or a folder of train-* and test-* files."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.data.cache import cached, key_of_files, sized
from common.data.images import DataSet
from common.data.table import IMAGE_COLUMNS, LABEL_COLUMNS, Source, build_data_set, read_source
from common.errors import DataError

SHARD = re.compile(r"(.*-)(\d+)-of-(\d+)\.parquet")


def load_parquet_file(path: Path, data_folder: Path, side: int = 0) -> DataSet:
    """The images of one file, with a fixed stratified fifth as test set."""
    return _load(path.stem, [path], [], data_folder, side)


def load_parquet_folder(path: Path, data_folder: Path, side: int = 0) -> DataSet:
    """The images of `train-*.parquet` and `test-*.parquet`; without test files a fixed stratified fifth is held out.

    Raises DataError when there are no training files or a numbered file of a set is missing.
    """
    train, test = files_in_parts(path)
    if not train:
        others = sorted(file.name for file in path.glob("*.parquet"))
        raise DataError(
            f"{path} has no train-*.parquet, only {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}: "
            "rename the training files, or give one Parquet file with --data"
        )
    for file in train + test:
        if shard := SHARD.fullmatch(file.name):
            prefix, number, total = shard.groups()
            for index in range(int(total)):
                name = f"{prefix}{index:0{len(number)}d}-of-{total}.parquet"
                if not (path / name).exists():
                    raise DataError(f"{path / name} is missing, although {file.name} counts {int(total)} files")
    return _load(path.absolute().name, train, test, data_folder, side)


def files_in_parts(path: Path) -> tuple[list[Path], list[Path]]:
    """The files of training and of test images in a folder."""
    train, test = (
        sorted(path.glob(f"{part}-*.parquet")) + sorted(path.glob(f"{part}.parquet")) for part in ("train", "test")
    )
    return train, test


def _load(name: str, train: list[Path], test: list[Path], data_folder: Path, side: int) -> DataSet:
    def build() -> DataSet:
        return build_data_set(name, [_read(file) for file in train], [_read(file) for file in test], side)

    return cached(data_folder, sized(f"parquet {name}\n{key_of_files(train + test)}", side), build)


def _read(path: Path) -> Source:
    try:
        with pq.ParquetFile(path) as file:
            wanted = [one for one in file.schema_arrow.names if one in IMAGE_COLUMNS + LABEL_COLUMNS]
            # Without a wanted column all names are needed, for the message that lists them.
            table = file.read(wanted) if len(wanted) > 1 else file.schema_arrow.empty_table()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is not a readable Parquet file ({reason}): fetch or write it again") from error
    return read_source(str(path), table)
