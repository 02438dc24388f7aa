"""The handwritten digits that ship inside scikit-learn: 1797 grey images of 8x8, no network needed."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from common.data.class_names import without_names
from common.data.images import DataSet, Images
from common.data.split import split_test
from common.errors import DataError

# Greys run from 0 to 16 (counts of dark pixels in 4x4 blocks of the scan).
WHITE = 16


def load_digits() -> DataSet:
    """The digits, greys stretched to 0..255, with a fixed stratified fifth as test set."""
    rows = np.loadtxt(_file(), delimiter=",", dtype=np.int64)  # 64 greys and the label
    greys = np.rint(rows[:, :-1].reshape(-1, 1, 8, 8) * (255 / WHITE)).astype(np.uint8)
    images = Images(torch.from_numpy(greys), torch.from_numpy(rows[:, -1].copy()))
    train, test = split_test(images, "digits")
    return DataSet("digits", train, test, without_names(10))


def _file() -> Path:
    """Where scikit-learn keeps them; to import what reads them takes longer than a small training."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("the digits ship with scikit-learn, which is not installed; install FedDAC again")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
