"""One seed for everything: independent random streams derived by name; torch's global ones are seeded for a while."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

CPU = torch.device("cpu")


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every name, the same on every machine and Python version.

    >>> derive_seed(0, "partition") == derive_seed(0, "partition")
    True
    >>> derive_seed(0, "sample", 1) == derive_seed(0, "sample", 2)
    False
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator of its own stream."""
    return np.random.default_rng(derive_seed(seed, *names))


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU torch generator of its own stream."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


@contextmanager
def seeded(seed: int, accelerator: torch.device = CPU) -> Iterator[None]:
    """Inside, torch's global generators of the CPU and of `accelerator` start from `seed`; after it, they go on.

    Initial weights and dropout draw from these. Generators of other accelerators are left alone, which
    `torch.manual_seed` does not: what surrounds this may have seeded one of them.
    """
    cuda = accelerator.type == "cuda"
    with torch.random.fork_rng(devices=[accelerator] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(accelerator):
                torch.cuda.manual_seed(seed)
        yield
