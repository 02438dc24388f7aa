"""Tables of encoded images and labels, as Hugging Face stores them, to decoded images.

A table has an image column (`image` or `img`: a struct whose `bytes` hold a PNG or JPEG file) and a label column
(`label`, `labels` or `fine_label`: integers from 0). Class names stand in the schema's metadata.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from common.data.class_names import numbered
from common.data.decode import Example, decode_images
from common.data.images import DataSet, Images
from common.data.split import split_test
from common.errors import DataError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
MOST_CLASSES = 65_536


@dataclass(frozen=True)
class Source:
    """One table of a part, the file it came from as messages name it, and its class names where it has any."""

    where: str
    table: pa.Table
    class_names: tuple[str, ...]


def build_data_set(name: str, train: list[Source], test: list[Source], side: int = 0) -> DataSet:
    """Decode the tables of each part; without `test`, a fixed stratified fifth of `train` is held out.

    `side` is that of `decode_images`. Raises DataError naming the file and row of the first image or label that cannot
    be used.
    """
    class_names = _common_class_names([*train, *test])
    train_images, example = _decode_part(train, name, class_names, None, side)
    if test:
        test_images, _ = _decode_part(test, name, class_names, example, side)
    else:
        train_images, test_images = split_test(train_images, name)
    if not class_names:
        class_names = numbered(train_images, test_images)
    return DataSet(name, train_images, test_images, class_names, divided=not test)


def read_source(where: str, table: pa.Table) -> Source:
    """The two columns of interest of `table`, as `image` (binary) and `label` (int64), with the class names.

    Raises DataError when a column is missing or of another type.
    """
    image_name = _find(where, "an image", IMAGE_COLUMNS, table.column_names)
    label_name = _find(where, "a label", LABEL_COLUMNS, table.column_names)
    images, labels = table.column(image_name), table.column(label_name)
    if not pa.types.is_struct(images.type) or images.type.get_field_index("bytes") < 0:
        raise DataError(f"column {image_name!r} of {where} is {images.type}: it must be a struct with a field 'bytes'")
    encoded = pc.struct_field(images, "bytes")
    if not (pa.types.is_binary(encoded.type) or pa.types.is_large_binary(encoded.type)):
        raise DataError(f"'bytes' in column {image_name!r} of {where} is {encoded.type}: it must be binary")
    if not pa.types.is_integer(labels.type):
        raise DataError(f"column {label_name!r} of {where} is {labels.type}: labels must be integers from 0")
    return Source(where, pa.table({"image": encoded, "label": labels}), _class_names(table.schema, label_name))


def _find(where: str, what: str, names: tuple[str, ...], present: list[str]) -> str:
    for name in names:
        if name in present:
            return name
    raise DataError(
        f"{where} has no column with {what}: its columns are {', '.join(present) or 'none'}, "
        f"but one must be called {' or '.join(names)}"
    )


def _class_names(schema: pa.Schema, label_name: str) -> tuple[str, ...]:
    """The names Hugging Face keeps in the schema, or none when they are absent or not as expected."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label_name]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _common_class_names(sources: list[Source]) -> tuple[str, ...]:
    named = [source for source in sources if source.class_names]
    for source in named:
        if source.class_names != named[0].class_names:
            raise DataError(
                f"{source.where} and {named[0].where} name their classes differently: all files of a data set must "
                "give a label one meaning"
            )
    return named[0].class_names if named else ()


def _decode_part(
    sources: list[Source], name: str, class_names: tuple[str, ...], like: Example | None, side: int
) -> tuple[Images, Example]:
    images, labels = [], []
    for source in sources:
        if source.table.num_rows == 0:
            continue
        labels.append(_labels(source, class_names))
        decoded, like = decode_images(source.table.num_rows, _reader(source), _namer(source), like, side)
        images.append(decoded)
    if like is None or not images:
        raise DataError(f"{' and '.join(source.where for source in sources) or name} has no rows")
    joined = images[0] if len(images) == 1 else np.concatenate(images)
    return Images(torch.from_numpy(joined), torch.from_numpy(np.concatenate(labels))), like


def _labels(source: Source, class_names: tuple[str, ...]) -> np.ndarray:
    column = source.table.column("label")
    if column.null_count:
        raise DataError(f"{source.where}, row {_first(pc.is_null(column))} has no label")
    classes = len(class_names) or MOST_CLASSES
    # Checked before the cast to int64, which would wrap a huge unsigned label around.
    values = np.asarray(column.to_numpy())
    outside = np.flatnonzero((values < 0) | (values >= classes))
    if len(outside):
        row = int(outside[0])
        raise DataError(
            f"{source.where}, row {row} has the label {values[row]}: labels must lie between 0 and {classes - 1}"
        )
    return values.astype(np.int64)


def _first(mask: pa.ChunkedArray) -> int:
    return int(np.flatnonzero(mask.to_numpy())[0])


def _namer(source: Source) -> Callable[[int], str]:
    return lambda row: f"{source.where}, row {row}"


def _reader(source: Source) -> Callable[[int], bytes]:
    column = source.table.column("image")

    def read(row: int) -> bytes:
        encoded = column[row].as_py()
        if encoded is None:
            raise DataError(f"{source.where}, row {row} has no image bytes")
        return bytes(encoded)

    return read
