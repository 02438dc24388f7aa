"""The handwritten digits that ship inside scikit-learn: 1797 grey images of 8x8, no network needed."""

import numpy as np
import torch

from common.data.images import DataSet, Images
from common.data.split import split_test

# Greys run from 0 to 16 (counts of dark pixels in 4x4 blocks of the scan).
WHITE = 16


def load_digits() -> DataSet:
    """The digits, greys stretched to 0..255, with a fixed stratified fifth as test set."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    greys = np.rint(bunch.images * (255 / WHITE)).astype(np.uint8)
    images = Images(torch.from_numpy(greys).unsqueeze(1), torch.from_numpy(bunch.target.astype(np.int64)))
    train, test = split_test(images, "digits")
    return DataSet("digits", train, test, tuple(map(str, bunch.target_names)))
