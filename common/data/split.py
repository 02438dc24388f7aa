"""Stratified splits: the server's reference set against the devices' images, and a test part where a set has none."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from common.data.images import DataSet, Images
from common.errors import DataError
from common.groups import DataSettings
from common.seeds import torch_generator

TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Split:
    """Sorted int64 indices into a data set's training images: disjoint, and together all of them.

    reference_train: what the server's search trains on.
    reference_validation: what the server chooses by; never trained on.
    devices: what the devices share.
    """

    reference_train: Tensor
    reference_validation: Tensor
    devices: Tensor


def split_stratified(labels: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Divide positions of `labels` (int64, (N,)) into (kept, held out), both sorted, `fraction` of them held out.

    Every class gives its share. The shares are rounded by largest remainder, so that the held-out total is
    `fraction * N` rounded; only classes too small for it change that: of two or more samples at least one is kept and
    one held out, and a single one is always kept.

    Raises DataError for a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise DataError(f"the share to hold out must lie between 0 and 1, not {fraction}")
    classes, counts = torch.unique(labels, return_counts=True)
    shares = _shares(counts.tolist(), fraction)
    held_out = []
    for one, share in zip(classes, shares, strict=True):
        members = torch.nonzero(labels == one).flatten()
        held_out.append(members[torch.randperm(len(members), generator=generator)[:share]])
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    if held_out:
        is_held_out[torch.cat(held_out)] = True
    return torch.nonzero(~is_held_out).flatten(), torch.nonzero(is_held_out).flatten()


def split_reference(data: DataSet, settings: DataSettings, seed: int) -> Split:
    """Divide the training images among the reference set of the server and the devices.

    `settings.reference_fraction` of them go to the server, and `settings.validation_fraction` of those to its
    validation part. The same seed gives the same split.

    Raises DataError when a part would be too small to use: fewer than two images to train on (batch norm needs
    two), or none to validate on.
    """
    labels = data.train.labels
    devices, reference = split_stratified(
        labels, settings.reference_fraction, torch_generator(seed, "split", "reference")
    )
    train, validation = split_stratified(
        labels[reference], settings.validation_fraction, torch_generator(seed, "split", "validation")
    )
    split = Split(reference[train], reference[validation], devices)
    for part, indices, least in (
        ("the reference set to train on", split.reference_train, 2),
        ("the reference set to validate on", split.reference_validation, 1),
        ("the devices", split.devices, 2),
    ):
        if len(indices) < least:
            raise DataError(
                f"{data.name} has {len(labels)} training images, which leaves {len(indices)} for {part}: use a "
                "larger data set, or change reference-fraction and validation-fraction"
            )
    return split


def split_test(images: Images, name: str) -> tuple[Images, Images]:
    """(train, test) for a data set `name` that comes in one piece: a stratified split that no run seed changes.

    Raises DataError when the set is too small to hold anything out.
    """
    kept, held_out = split_stratified(images.labels, TEST_FRACTION, torch_generator(0, "split", "test"))
    if len(held_out) == 0:
        raise DataError(f"{name} has no class with two images or more, so no test images can be held out")
    return images.subset(kept), images.subset(held_out)


def _shares(counts: list[int], fraction: float) -> list[int]:
    """How many of each class are held out."""
    least = [min(1, count - 1) for count in counts]
    most = [count - 1 for count in counts]
    total = min(max(math.floor(fraction * sum(counts) + 0.5), sum(least)), sum(most))
    exact = [fraction * count for count in counts]
    shares = [min(max(math.floor(e), low), high) for e, low, high in zip(exact, least, most, strict=True)]

    def lacking(index: int) -> float:
        return exact[index] - shares[index]

    while sum(shares) < total:
        shares[max((i for i in range(len(counts)) if shares[i] < most[i]), key=lacking)] += 1
    while sum(shares) > total:
        shares[min((i for i in range(len(counts)) if shares[i] > least[i]), key=lacking)] -= 1
    return shares
