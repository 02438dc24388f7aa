"""The well-known data sets that torchvision downloads."""

import contextlib
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.data.cache import cached
from common.data.images import DataSet, Images
from common.errors import DataError

TORCHVISION_NAMES = {
    "fashion-mnist": "FashionMNIST",
    "mnist": "MNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
# Seconds without an answer after which a server counts as out of reach; torchvision itself would wait for ever.
TIMEOUT_SECONDS = 10.0


def load_download(name: str, data_folder: Path) -> DataSet:
    """One of `TORCHVISION_NAMES`, downloaded to `data_folder` the first time.

    Raises DataError when torchvision does not work here, or the download does not.
    """

    def build() -> DataSet:
        try:
            from torchvision import datasets
        except Exception as error:  # A build that does not match torch fails with RuntimeError or OSError as well.
            raise DataError(
                f"{name} needs torchvision, which cannot be imported here ({_reason(error)}): install the torchvision "
                "that matches torch, or give a folder or Parquet files with --data, or use --data digits"
            ) from error
        kind = getattr(datasets, TORCHVISION_NAMES[name])
        try:
            with _quiet_and_impatient():
                train, test = (kind(data_folder / name, train=part, download=True) for part in (True, False))
        except Exception as error:  # torchvision passes on whatever the network, the disk or an archive raised.
            raise DataError(
                f"{name} could not be downloaded to {data_folder} ({_reason(error)}): connect to the network, or give "
                "a folder or Parquet files with --data, or use --data digits"
            ) from error
        return DataSet(name, _images(train), _images(test), tuple(map(str, train.classes)))

    return cached(data_folder, f"torchvision {name}", build)


def _images(part: Any) -> Images:
    pixels = np.asarray(part.data)
    # CIFAR comes as (N, H, W, C), MNIST as (N, H, W).
    pixels = pixels[:, np.newaxis] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    labels = np.asarray(part.targets, dtype=np.int64)
    return Images(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels))


@contextlib.contextmanager
def _quiet_and_impatient() -> Iterator[None]:
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(previous)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
