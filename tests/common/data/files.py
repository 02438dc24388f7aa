"""Writes the small pictures and Parquet files that the tests read."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("cat", "dog")


def picture(value: int, mode: str = "RGB", side: int = 4, kind: str = "PNG") -> bytes:
    """A PNG or JPEG file of one shade."""
    file = io.BytesIO()
    shape = (side, side) if mode == "L" else (side, side, len(mode))
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def write_parquet(
    path: Path,
    pictures: Sequence[bytes | None],
    labels: Sequence[Any],
    *,
    image_column: str = "image",
    label_column: str = "label",
    class_names: Sequence[str] = CLASSES,
    label_type: pa.DataType | None = None,
) -> Path:
    """A Parquet file as Hugging Face writes it; without `class_names` it has no metadata."""
    structs = [{"bytes": one, "path": None} for one in pictures]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image_column: pa.array(structs, kind), label_column: pa.array(labels, label_type or pa.int64())})
    if class_names:
        features = {
            image_column: {"_type": "Image"},
            label_column: {"names": list(class_names), "_type": "ClassLabel"},
        }
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path
