"""Files of a run that are valid JSON and yet hold what no run writes: a text for a number, a list for an object."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import CheckpointError


@contextmanager
def values_as_written(folder: Path) -> Iterator[None]:
    """Around work on what was read from `folder`: a value of the wrong kind becomes one CheckpointError that names it.

    Every figure passes through arithmetic or a lookup sooner or later, and Python says there what it found.
    """
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        what = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the files in {folder} hold a value that no run writes ({type(error).__name__}: {what}); "
            "restore them or leave this run out"
        ) from error
