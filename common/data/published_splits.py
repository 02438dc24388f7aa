"""The two splits of the program that AutoFLIP is built on: every device with as many images, but of few classes.

Both keep what their program does at its published settings; where that stops with an error (shards that do not divide
evenly) or draws again and again with fewer images, these go on.
"""

import numpy as np
from numpy.typing import NDArray

from common.seeds import numpy_generator

Indices = NDArray[np.int64]


def patho(labels: Indices, per_device: int, devices: int, seed: int) -> list[Indices]:
    """`per_device` single-class shards for each device, of different classes while there are any.

    Every class is cut into ceil(devices x per_device / classes) equal shards; what no device draws is left over.
    """
    generator = numpy_generator(seed, "partition", "patho")
    classes = np.unique(labels)
    count = -(-devices * per_device // len(classes))
    shards = {int(one): np.array_split(generator.permutation(np.flatnonzero(labels == one)), count) for one in classes}
    parts = []
    for _ in range(devices):
        mine: list[Indices] = []
        while len(mine) < per_device:
            left = [one for one, pieces in shards.items() if pieces]
            chosen = generator.permutation(left)[: per_device - len(mine)]
            mine += [shards[int(one)].pop() for one in chosen]
        parts.append(np.concatenate(mine))
    return parts


def diri(labels: Indices, alpha: float, devices: int, seed: int) -> list[Indices]:
    """len(labels) // devices images for each device, whose shares of the classes it draws from Dirichlet(alpha).

    Of a class that has too few images left the device takes all, and draws anew among the others for the rest.
    """
    generator = numpy_generator(seed, "partition", "diri")
    pools = [list(generator.permutation(np.flatnonzero(labels == one))) for one in np.unique(labels)]
    parts = []
    for _ in range(devices):
        mine: list[int] = []
        while (missing := len(labels) // devices - len(mine)) > 0:
            left = [pool for pool in pools if pool]
            shares = generator.dirichlet([alpha] * len(left))
            if not np.isfinite(shares).all():  # the draw of a tiny alpha underflows: one class has it all
                shares = np.eye(len(left))[generator.integers(len(left))]
            for pool, wanted in zip(left, generator.multinomial(missing, shares), strict=True):
                mine += [pool.pop() for _ in range(min(int(wanted), len(pool)))]
        parts.append(np.array(mine, np.int64))
    return parts
