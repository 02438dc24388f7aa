"""The one way in which files that a stranger may have written are read: bounded before anything is built from them.

Sizes are looked at before a byte is read, nesting and numbers before a value is returned, so that a file of a few bytes
never becomes a gigabyte, and whatever is wrong with it is said in one short line (`Unreadable`), which the caller puts
into an error of its own.
"""

import hashlib
import json
import math
import os
import reprlib
import stat
import struct
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

MAX_TEXT_BYTES = 4 * 2**20
"""Settings, budgets, experiments and architectures are far smaller; a megabyte of brackets becomes 50 of objects."""

MAX_DEPTH = 64
MAX_DIGITS = 40
MAX_DOTS, MAX_LINE_DOTS = 50_000, 500
MAX_HEADER_BYTES = 4 * 2**20
MAX_OWN_HEADER_BYTES = 100_000_000
"""Of a file with the weights of many networks, such as a search's checkpoint; the most that safetensors reads."""


class Unreadable(Exception):
    """Why a file cannot be read, in a few words."""


def read_limited(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes; raises Unreadable."""
    with _regular_file(path) as (file, size):
        if size > limit:
            raise Unreadable(f"it has {size:,} bytes, more than the {limit:,} that can be right")
        content = file.read(size + 1)  # not `limit`, which would be set aside at once
    if len(content) > size:
        raise Unreadable("it is being written")
    return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of a regular file of any size, read piece by piece; raises Unreadable."""
    with _regular_file(path) as (file, _):
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _regular_file(path: Path) -> Iterator[tuple[BufferedReader, int]]:
    """The open file and its size in bytes."""
    try:
        # without waiting for the other end, which a named pipe may not have
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("it is not a file")
            yield file, status.st_size
    except OSError as error:
        raise Unreadable(error.strerror or type(error).__name__) from None
    except ValueError:  # a NUL byte
        raise Unreadable("its name holds a NUL byte") from None


def parse_json(content: bytes | str) -> Any:
    """Strict JSON: no NaN, no infinity, no giant number, no deep nesting; raises Unreadable."""
    with _refusing("JSON"):
        text = content if isinstance(content, str) else content.decode()
        data = json.loads(text, parse_constant=_no_number, parse_int=_whole, parse_float=_real)
    _check(data)
    return data


def parse_toml(content: bytes) -> dict[str, Any]:
    """TOML without giant numbers and deep nesting; raises Unreadable."""
    # The parser keeps every prefix of a dotted key: a line of 20,000 dots takes 1.6 GB.
    if content.count(b".") > MAX_DOTS or any(line.count(b".") > MAX_LINE_DOTS for line in content.splitlines()):
        raise Unreadable("it has more dots than settings need")
    with _refusing("TOML"):
        data = tomllib.loads(content.decode())
    _check(data)
    return data


def read_json(path: Path, limit: int = MAX_TEXT_BYTES) -> Any:
    """`parse_json` of a file."""
    return parse_json(read_limited(path, limit))


def tensor_header(content: bytes) -> dict[str, Any]:
    """The description of the tensors in the bytes of a safetensors file, each with dtype, shape and data_offsets.

    Raises Unreadable if it is longer than any that describes a network, or no description.
    """
    return _tensors(BytesIO(content), len(content))[0]


def tensor_file_header(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same of a file, without the bytes of a tensor being read, and the metadata of the file beside it."""
    with _regular_file(path) as (file, size):
        return _tensors(file, size)


def check_tensor_file(path: Path) -> None:
    """Raises Unreadable for what is no file, and for a header longer than the file or MAX_OWN_HEADER_BYTES.

    The header itself is left to safetensors, which builds far less from it than Python would.
    """
    with _regular_file(path) as (file, size):
        _header_length(file, size, MAX_OWN_HEADER_BYTES)


def _header_length(file: BinaryIO, size: int, limit: int) -> int:
    beginning = file.read(8)
    if len(beginning) < 8:
        raise Unreadable("it is cut short")
    (length,) = struct.unpack("<Q", beginning)
    if length > min(limit, size - 8):
        raise Unreadable(f"its header claims {length:,} bytes")
    return int(length)


def _tensors(file: BinaryIO, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    header = parse_json(file.read(_header_length(file, size, MAX_HEADER_BYTES)))
    if not isinstance(header, dict):
        raise Unreadable("its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    for name, entry in header.items():
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
            raise Unreadable(f"its header describes no tensor under {reprlib.repr(name)}")
    return header, metadata if isinstance(metadata, dict) else {}


@contextmanager
def _refusing(kind: str) -> Iterator[None]:
    """Turn what a parser raises for text that is not of this kind into Unreadable."""
    try:
        yield
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text") from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"not valid {kind}: {_short(str(error))}") from None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {_short(text)} is too large")
    return value


def _check(data: Any) -> None:
    """Depth and digits; without recursion, for the depth is what is in question."""
    level = [data]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
            elif isinstance(value, int) and abs(value) >= 10**MAX_DIGITS:
                raise Unreadable(f"it holds a number of more than {MAX_DIGITS} digits")
        if not inner:
            return
        level = inner
    raise Unreadable("it is nested too deeply")


def printable(path: Path) -> str:
    """A path for an error message: shortened, and without letters that a terminal would act on."""
    return _short("".join(one if one.isprintable() else "?" for one in str(path)))


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
