"""Decoded data sets on disk, memory-mapped so that many processes share one copy.

An entry is a folder of four .npy files and `set.json`, which holds the names and a CRC-32 of each file. It is
written under a temporary name and renamed, so that no reader sees half of it. A damaged entry is rebuilt; a folder
that cannot be written only means that nothing is cached.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import torch

from common.data.images import DataSet, Images

# Raise when decoding, the fixed test split or the layout of an entry changes.
FORMAT = 2

_tell: ContextVar[Callable[[], None] | None] = ContextVar("tell", default=None)


def cached(folder: Path, key: str, build: Callable[[], DataSet]) -> DataSet:
    """The data set stored in `folder` under `key`, else what `build` returns, stored for the next time."""
    entry = folder / "decoded" / hashlib.sha256(f"{FORMAT}\n{key}".encode()).hexdigest()
    stored = _read(entry)
    if stored is not None:
        return stored
    if tell := _tell.get():
        tell()
    built = build()
    _write(entry, built)
    # Read back, so that this process holds the shared pages too and the decoded copy is freed.
    return _read(entry) or built


@contextmanager
def announcing(tell: Callable[[], None]) -> Iterator[None]:
    """Inside the block `tell` is called before a data set is downloaded or decoded, which may take minutes."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def key_of_files(paths: Iterable[Path]) -> str:
    """A key that changes when any of the files is replaced: their absolute paths, sizes and modification times."""
    lines = []
    for path in sorted(paths):
        status = path.stat()
        lines.append(f"{path.absolute()}\t{status.st_size}\t{status.st_mtime_ns}")
    return "\n".join(lines)


def sized(key: str, side: int) -> str:
    """The key of the same data set with its images brought to `side` pixels; unchanged for 0."""
    return f"{key}\nside {side}" if side else key


def _read(entry: Path) -> DataSet | None:
    try:
        description = json.loads((entry / "set.json").read_text(encoding="utf-8"))
        tensors = {}
        for name, checksum in description["crc32"].items():
            # Copy-on-write: pages are shared as long as nobody writes, and torch needs a writable array.
            array = np.load(entry / f"{name}.npy", mmap_mode="c", allow_pickle=False)
            if zlib.crc32(array.data) != checksum:
                return None
            tensors[name] = torch.from_numpy(array)
        return DataSet(
            str(description["name"]),
            Images(tensors["train-images"], tensors["train-labels"]),
            Images(tensors["test-images"], tensors["test-labels"]),
            tuple(map(str, description["class_names"])),
            bool(description["divided"]),
        )
    except Exception:  # A missing entry and damage of any kind have one answer: build it again.
        return None


def _write(entry: Path, data: DataSet) -> None:
    tensors = {
        "train-images": data.train.images,
        "train-labels": data.train.labels,
        "test-images": data.test.images,
        "test-labels": data.test.labels,
    }
    temporary = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix="writing-", dir=entry.parent))
        checksums = {}
        for name, tensor in tensors.items():
            array = np.ascontiguousarray(tensor.numpy())
            checksums[name] = zlib.crc32(array.data)
            with open(temporary / f"{name}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        facts = {"name": data.name, "class_names": data.class_names, "divided": data.divided}
        description = {**facts, "crc32": checksums}
        (temporary / "set.json").write_text(json.dumps(description), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        os.replace(temporary, entry)
    except OSError:
        # Not writable, disk full, or another process was faster: the run goes on with what it has.
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
