"""How the devices' images are divided among them: Flower's partitioners, and the splits of published programs.

| spec | a device gets | left over by design |
|---|---|---|
| iid | an equal random share | nothing |
| dirichlet:ALPHA | of each class a share drawn from Dirichlet(ALPHA) | nothing |
| balanced-dirichlet:ALPHA | the same, but once it has its share of all images, none of the other classes | nothing |
| classes:N | images of N classes | classes no device drew; none with at least as many devices as classes |
| shards:N | N equal pieces of the images sorted by class | fewer images than there are shards |
| paper-iid:N | N images of every class | the rest |
| paper-shards:N | two shards of N images, each of one class | the rest |
| patho:N | N equal shards, each of another class while there are any (AutoFLIP) | shards that no device drew |
| diri:ALPHA | an equal number, in classes by its own draw from Dirichlet(ALPHA) (AutoFLIP) | less than one per device |
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.published_splits import diri, patho
from common.errors import DataError
from common.seeds import derive_seed, numpy_generator

# Batch norm cannot train on one image.
MINIMUM_IMAGES = 2
# The Dirichlet partitioner gives up after 11 draws; so many partitioners are tried.
DIRICHLET_ATTEMPTS = 10
BALANCED_IMAGES = 10  # the published balanced draw is repeated until every device has so many
SPECS = (
    "iid, dirichlet:ALPHA, balanced-dirichlet:ALPHA, classes:N, shards:N, paper-iid:N, paper-shards:N, patho:N or "
    "diri:ALPHA"
)
CONTINUOUS = ("dirichlet", "balanced-dirichlet", "diri")
"""The kinds whose number is an ALPHA."""


def partition(labels: Tensor, spec: str, devices: int, seed: int) -> list[Tensor]:
    """For each device the sorted positions in `labels` (int64, (N,)) that are its own; no two devices share one.

    Every device has at least two images. The same seed gives the same parts; see the table above for `spec`.

    Raises DataError for an unknown spec, an impossible number in it, or too few images for the devices.
    """
    kind, number = _parse(spec)
    if devices < 1:
        raise DataError(f"a partition needs at least one device, not {devices}")
    if len(labels) < MINIMUM_IMAGES * devices:
        raise DataError(
            f"{devices} devices need at least {MINIMUM_IMAGES * devices} images, but there are {len(labels)}: "
            f"use at most {len(labels) // MINIMUM_IMAGES} devices or a larger data set"
        )
    classes = labels.numpy()
    if kind == "iid":  # as Flower's IidPartitioner cuts, without importing it: that takes longer than a small training
        parts = np.array_split(_order(len(classes), seed), devices)
    elif kind == "paper-iid":
        parts = _paper_iid(classes, int(number), devices, seed)
    elif kind == "paper-shards":
        parts = _paper_shards(classes, int(number), devices, seed)
    elif kind == "patho":
        if number > (distinct := len(np.unique(classes))):
            raise DataError(f"partition {spec} needs {int(number)} classes, but the images have {distinct}")
        parts = patho(classes, int(number), devices, seed)
    elif kind == "diri":
        parts = diri(classes, number, devices, seed)
    elif kind in CONTINUOUS:
        parts = _dirichlet(classes, kind, number, devices, seed)
    else:
        parts = _flower(classes, kind, int(number), devices, seed)
    smallest = min(range(devices), key=lambda device: len(parts[device]))
    if len(parts[smallest]) < MINIMUM_IMAGES:
        raise DataError(
            f"partition {spec} leaves device {smallest} with {len(parts[smallest])} images, but batch norm needs "
            f"{MINIMUM_IMAGES}: use fewer than {devices} devices, a larger number in the partition, or iid"
        )
    return [torch.from_numpy(np.sort(part).astype(np.int64)) for part in parts]


def class_coverage(labels: Tensor, parts: Sequence[Tensor]) -> list[int]:
    """How many distinct classes each part holds."""
    return [len(torch.unique(labels[part])) for part in parts]


def _parse(spec: str) -> tuple[str, float]:
    kind, _, text = spec.partition(":")
    if spec == "iid":
        return kind, 0.0
    try:
        number = float(text) if kind in CONTINUOUS else int(text)
    except ValueError:
        raise DataError(f"unknown partition {spec!r}: use {SPECS}") from None
    if kind in CONTINUOUS:
        # Far beyond this, the draw overflows and cannot be told from iid anyway.
        if not 0 < number <= 1e6:
            raise DataError(f"partition {spec} needs an ALPHA above 0 and at most 1e6, such as {kind}:0.5")
    elif kind not in ("classes", "shards", "paper-iid", "paper-shards", "patho"):
        raise DataError(f"unknown partition {spec!r}: use {SPECS}")
    elif number < 1:
        raise DataError(f"partition {spec} needs a whole number of at least 1, such as {kind}:2")
    return kind, number


def _flower(labels: np.ndarray, kind: str, number: int, devices: int, seed: int) -> list[np.ndarray]:
    from flwr_datasets.partitioner import PathologicalPartitioner, ShardPartitioner

    draw = derive_seed(seed, "partition", "draw")
    distinct = len(np.unique(labels))
    if kind == "classes":
        if number > distinct:
            raise DataError(f"partition classes:{number} needs {number} classes, but the images have {distinct}")
        # Each device's first class is dealt in turn: the rule of the original study (arXiv 2102.02079), and every
        # class is used as soon as there are as many devices.
        partitioner = PathologicalPartitioner(
            devices, "label", number, class_assignment_mode="first-deterministic", shuffle=False, seed=draw
        )
        advice = "use fewer devices or fewer classes per device"
    else:
        if number * devices > len(labels):
            raise DataError(
                f"partition shards:{number} cuts {number * devices} shards for {devices} devices, but there are "
                f"{len(labels)} images: use at most shards:{len(labels) // devices}"
            )
        partitioner = ShardPartitioner(devices, "label", num_shards_per_partition=number, shuffle=False, seed=draw)
        advice = "use fewer devices or fewer shards per device"
    try:
        return _apply(partitioner, labels, seed)
    except ValueError as error:
        raise DataError(
            f"partition {kind}:{number} cannot divide {len(labels)} images among {devices} devices: {advice}"
        ) from error


def _dirichlet(labels: np.ndarray, kind: str, alpha: float, devices: int, seed: int) -> list[np.ndarray]:
    """Without balancing, ALPHA means what it says; with it the shares are bent, as FedNAS and FedGKT have them."""
    from flwr_datasets.partitioner import DirichletPartitioner

    balanced = kind != "dirichlet"
    fewest = max(MINIMUM_IMAGES, min(BALANCED_IMAGES, len(labels) // (2 * devices)) if balanced else 0)
    for attempt in range(DIRICHLET_ATTEMPTS):
        partitioner = DirichletPartitioner(
            devices,
            "label",
            alpha,
            min_partition_size=fewest,
            self_balancing=balanced,
            shuffle=False,
            seed=derive_seed(seed, "partition", "draw", attempt),
        )
        try:
            return _apply(partitioner, labels, seed)
        except ValueError:
            continue
    raise DataError(
        f"partition {kind}:{alpha:g} left a device with fewer than {fewest} images in every draw: use a "
        f"larger ALPHA or fewer than {devices} devices"
    )


def _apply(partitioner: Any, labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Run a Flower partitioner over a table of labels alone; no image is touched and nothing is looked up.

    The rows are shuffled first: some partitioners cut each class in the order in which its images are stored.
    """
    from datasets import Dataset

    order = _order(len(labels), seed)
    partitioner.dataset = Dataset.from_dict({"index": order, "label": labels[order]})
    with warnings.catch_warnings():
        # A repeated draw and an unused class are expected here, and documented above.
        warnings.simplefilter("ignore")
        parts = [partitioner.load_partition(device) for device in range(partitioner.num_partitions)]
    return [part.with_format("numpy")[:]["index"] for part in parts]


def _order(count: int, seed: int) -> np.ndarray:
    return numpy_generator(seed, "partition", "order").permutation(count)


def _paper_iid(labels: np.ndarray, per_class: int, devices: int, seed: int) -> list[np.ndarray]:
    generator = numpy_generator(seed, "partition", "paper-iid")
    classes, counts = np.unique(labels, return_counts=True)
    if (fewest := int(counts.min())) < per_class * devices:
        raise DataError(
            f"partition paper-iid:{per_class} needs {per_class * devices} images of every class for {devices} devices, "
            f"but class {classes[counts.argmin()]} has {fewest}: "
            + (f"use at most paper-iid:{fewest // devices}" if fewest >= devices else f"use at most {fewest} devices")
        )
    taken = [generator.permutation(np.flatnonzero(labels == one))[: per_class * devices] for one in classes]
    # (classes, devices, per_class): each device takes its column of every class.
    dealt = np.stack(taken).reshape(len(classes), devices, per_class)
    return [dealt[:, device].reshape(-1) for device in range(devices)]


def _paper_shards(labels: np.ndarray, size: int, devices: int, seed: int) -> list[np.ndarray]:
    """Two shards each, without regard to their classes: both may be of the same one.

    Shards are cut within each class, as they fall out in the published program, whose shard size divides the
    number of images of a class.
    """
    generator = numpy_generator(seed, "partition", "paper-shards")
    shards: list[np.ndarray] = []
    counts = []
    for one in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == one))
        counts.append(len(members))
        shards += [members[start : start + size] for start in range(0, len(members) - size + 1, size)]
    if len(shards) < 2 * devices:
        raise DataError(
            f"partition paper-shards:{size} needs {2 * devices} single-class shards of {size} images for {devices} "
            f"devices, but the images give {len(shards)}: {_shard_advice(counts, devices)}"
        )
    dealt = generator.permutation(len(shards))[: 2 * devices].reshape(devices, 2)
    return [np.concatenate([shards[first], shards[second]]) for first, second in dealt]


def _shard_advice(counts: list[int], devices: int) -> str:
    largest = sum(counts) // (2 * devices)
    while largest > 0 and sum(count // largest for count in counts) < 2 * devices:
        largest -= 1
    return f"use at most paper-shards:{largest}" if largest else f"use at most {math.floor(sum(counts) / 2)} devices"
