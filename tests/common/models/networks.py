"""The networks that the tests of descriptions go through, on images that are as small as each can take."""

from functools import lru_cache

import torch

from common.architecture import Architecture
from common.models import allow_network, describe
from common.models.description import BaseNetwork
from common.seeds import numpy_generator
from tests.examples import slow

SHAPES = {
    "mobilenet_v2": (3, 8, 8),
    "cnn": (1, 12, 12),
    "mlp": (1, 8, 8),
    "resnet8": (1, 9, 9),
    "resnet20": (3, 8, 8),
    "resnet56": (1, 8, 8),
    "resnet110": (1, 8, 8),
    "torchvision:resnet18": (3, 32, 32),
    "torchvision:vgg11_bn": (3, 32, 32),
    "torchvision:mobilenet_v3_small": (3, 32, 32),
    "torchvision:efficientnet_b0": (3, 32, 32),
    "torchvision:squeezenet1_1": (3, 32, 32),
    "torchvision:densenet121": (3, 32, 32),
    "torchvision:shufflenet_v2_x0_5": (3, 32, 32),
    "torchvision:resnext50_32x4d": (3, 32, 32),
    "tests.common.models.users:thirty_lines": (2, 8, 8),
}
for one in SHAPES:
    allow_network(one)

QUICK = ("mobilenet_v2", "cnn", "mlp", "resnet8", "torchvision:squeezenet1_1", "tests.common.models.users:thirty_lines")
EVERY = [*QUICK, *slow(*(one for one in SHAPES if one not in QUICK))]
"""All of them as parameters of a test; those that take seconds are slow."""


def base_of(model: str) -> BaseNetwork:
    """The base network with ten classes."""
    return BaseNetwork(model, SHAPES[model], 10)


@lru_cache(maxsize=256)
def random_part(model: str, seed: int, share: float = 0.0) -> Architecture:
    """An architecture that keeps random channels of every group, and about half of the blocks.

    Each group keeps `share` of its channels, or a random number of them where it is 0.
    """
    base, generator = base_of(model), numpy_generator(seed, model)
    kept = {}
    for group in describe(base).reducible:
        count = max(1, round(share * group.size)) if share else int(generator.integers(1, group.size + 1))
        kept[group.name] = sorted(generator.choice(group.size, count, replace=False).tolist())
    removed = [block.name for block in describe(base).blocks if generator.random() < 0.5]
    return Architecture.with_kept(base, kept, removed)


def images(model: str, count: int = 2, seed: int = 0) -> torch.Tensor:
    """Random images for the network."""
    return torch.randn(count, *SHAPES[model], generator=torch.Generator().manual_seed(seed))
