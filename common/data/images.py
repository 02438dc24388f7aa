"""Images in memory: the one form in which every data set reaches the rest of the program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from common.errors import DataError


@dataclass(frozen=True)
class Images:
    """Labelled images of one size.

    images: uint8, (N, C, H, W), values 0 to 255; may be a memory-mapped file, so never write to it in place.
    labels: int64, (N,), values from 0.

    Raises DataError when types, shapes or lengths do not fit.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be uint8 of shape (N, C, H, W), not {self.images.dtype} of {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{len(self.images)} images need as many int64 labels, not {self.labels.dtype} of "
                f"shape {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor | Sequence[int]) -> Self:
        """The images at `indices` (int64, any length), in that order, as a copy."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return type(self)(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class DataSet:
    """A named data set: training images, test images and the name of each class.

    `divided` says that it came in one piece, of which `common.data.split.split_test` took the test images.

    Raises DataError when a part is empty, the parts differ in image shape, or a label has no class.
    """

    name: str
    train: Images
    test: Images
    class_names: tuple[str, ...]
    divided: bool = False

    def __post_init__(self) -> None:
        for part, images in (("training", self.train), ("test", self.test)):
            if len(images) == 0:
                raise DataError(f"{self.name} has no {part} images")
            lowest, highest = int(images.labels.min()), int(images.labels.max())
            if lowest < 0 or highest >= self.classes:
                raise DataError(
                    f"{self.name} has the label {lowest if lowest < 0 else highest} among its {part} images, "
                    f"but its {self.classes} classes are numbered 0 to {self.classes - 1}"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DataError(
                f"{self.name} has training images of shape {tuple(self.train.images.shape[1:])} but "
                f"test images of shape {tuple(self.test.images.shape[1:])}: they must be equal"
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @property
    def whole(self) -> Images:
        """The images that were given to train on: those of a divided set together again, test images last."""
        if not self.divided:
            return self.train
        parts = self.train, self.test
        return Images(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def mean_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Per-channel mean and population standard deviation of `images / 255`.

    images: uint8, (N, C, H, W). Returns two float32 tensors of shape (C,). The sums are taken over the exact
    counts of the 256 values, so the result does not depend on threads, batches or the machine.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].reshape(-1), minlength=256).to("cpu", torch.float64)
        mean = (counts * values).sum() / counts.sum()
        variance = (counts * (values - mean) ** 2).sum() / counts.sum()
        means.append(mean)
        deviations.append(variance.sqrt())
    return torch.stack(means).float(), torch.stack(deviations).float()
