"""Data sets of the Hugging Face hub by name, through the `datasets` library."""

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.cache import cached, key_of_files, sized
from common.data.images import DataSet
from common.errors import DataError

# The library itself retries for about half a minute before it says that it has no network.
TIMEOUT_SECONDS = 5.0


def load_hub(name: str, data_folder: Path, side: int = 0) -> DataSet:
    """The `train` and `test` splits of the hub's data set `name`; without `test` a fixed stratified fifth is held out.

    What an earlier download left in the library's own cache is used when the hub cannot be reached.

    Raises DataError when the data set cannot be had, has no `train` split or no usable columns.
    """
    import datasets

    from common.data.table import Source, build_data_set, read_source

    reachable = _is_reachable(datasets.config.HF_ENDPOINT)
    try:
        with contextlib.nullcontext() if reachable else _offline(), _quiet():
            splits = datasets.load_dataset(name)
    except Exception as error:  # Unknown name, private, scripted, no network, no space: each has a type of its own.
        cause = _reason(error) if reachable else "the hub cannot be reached and nothing is kept from an earlier time"
        raise DataError(
            f"hub:{name} could not be loaded ({cause}): check the name and the network, or give a folder or Parquet "
            "files with --data, or use --data digits"
        ) from error
    if "train" not in splits:
        raise DataError(f"hub:{name} has no split called train, only {', '.join(splits)}: save it as Parquet files")

    def build() -> DataSet:
        parts: list[list[Source]] = []
        for part in ("train", "test"):
            split = encoded(splits[part]) if part in splits else None
            parts.append([] if split is None else [read_source(f"hub:{name} {part}", split.data.table)])
        return build_data_set(name, parts[0], parts[1], side)

    files = [Path(one["filename"]) for part in ("train", "test") if part in splits for one in splits[part].cache_files]
    return cached(data_folder, sized(f"hub {name}\n{key_of_files(files)}", side), build)


def encoded(split: Any) -> Any:
    """The split with its images as the bytes they were stored as, not decoded by the library."""
    from datasets import Image

    for column, feature in split.features.items():
        if isinstance(feature, Image):
            split = split.cast_column(column, Image(decode=False))
    return split


def _is_reachable(address: str) -> bool:
    """Whether anything answers at `address` in time; in a thread, since looking up a name knows no timeout."""
    answers = []

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method="HEAD")
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return bool(answers)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The Hugging Face libraries look at their own caches only; they read these constants at each call."""
    import datasets
    from huggingface_hub import constants

    previous = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = previous


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars, and no warnings about what the error message says anyway."""
    import datasets

    verbosity, bars = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not bars:
            datasets.enable_progress_bars()


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
