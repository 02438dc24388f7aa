"""A run's JSON: strict, written atomically, and read with an error that names the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.atomic import write_atomically
from common.errors import CheckpointError
from common.reading import Unreadable, parse_json, printable, read_limited

MAX_FILE_BYTES = 2**31
"""No file of a run is larger; the metrics of a long one may well have some hundred megabytes."""
MAX_JSON_BYTES = 2**26
"""Of one JSON document, such as the budgets and the summary of a hundred thousand devices."""


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented strict JSON, atomically."""
    text = json.dumps(_plain(data), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Strict JSON from `path`; raises CheckpointError if it is missing, damaged or larger than MAX_JSON_BYTES."""
    return _parse_json(path, "", read_bytes(path, MAX_JSON_BYTES))


def json_line(record: Mapping[str, Any]) -> bytes:
    """`record` as one line of strict JSON."""
    return (json.dumps(_plain(record), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """`value` as JSON can hold it: NumPy numbers become Python's, NaN and infinity become None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate has no UTF-8 form
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _parse_json(path: Path, where: str, data: bytes) -> Any:
    try:
        return parse_json(data)
    except Unreadable as error:
        raise CheckpointError(f"{path}{where} is damaged: {error}") from None


def parse_event(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The event in a line of metrics.jsonl; raises CheckpointError, which names the line, if it is none."""
    event = _parse_json(path, f", line {number},", line)
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise CheckpointError(f'{path}, line {number}, is damaged: it is not an object with an "event"')
    return event


def list_of_objects(path: Path, data: Any) -> list[dict[str, Any]]:
    """`data` from `path`; raises CheckpointError unless it is a list of objects."""
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise CheckpointError(f"{path} is damaged: it is not a list of JSON objects")
    return data


def read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """The content of a file of a run; raises CheckpointError if it is missing or larger than `limit` bytes."""
    try:
        return read_limited(path, limit)
    except Unreadable as error:
        raise CheckpointError(f"cannot read {printable(path)}: {error}") from None
