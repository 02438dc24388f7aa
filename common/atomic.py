"""Files that are there whole or not at all, whatever moment a crash or a power cut picks."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODE = 0o644
"""Results are as readable as any other file; those that tempfile and safetensors make are their owner's alone."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` for the block to write to; at its end that file takes the place of `path`, in one step.

    It is on the disk by then. If the block fails, `path` stays as it was and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(MODE)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
