"""Which devices train in a round, and how."""

import math
from collections.abc import Sequence

import torch

from common.config import Config
from common.errors import ConfigurationError
from common.methods.training import TrainingOrder
from common.seeds import torch_generator

MAX_LOCAL_EPOCHS = 1_000_000


def sample_devices(
    names: Sequence[str], fraction: float, minimum: int, *, seed: int, round: int, cohort: str
) -> list[str]:
    """`fraction` of a cohort's devices (rounded, but at least `minimum` if there are as many), in the given order."""
    count = min(len(names), max(minimum, math.floor(fraction * len(names) + 0.5)))
    generator = torch_generator(seed, "sample", round, cohort)
    chosen = torch.randperm(len(names), generator=generator)[:count].sort().values
    return [names[position] for position in chosen.tolist()]


def epoch_range(spec: str) -> tuple[int, int]:
    """`"2"` -> (2, 2), `"3-5"` -> (3, 5); raises ConfigurationError for a range that is empty or has no end."""
    first, _, last = spec.partition("-")
    if max(len(first), len(last)) > len(str(MAX_LOCAL_EPOCHS)) or int(last or first) > MAX_LOCAL_EPOCHS:
        raise ConfigurationError(f"local-epochs can be at most {MAX_LOCAL_EPOCHS:,}, not {spec[:40]}")
    low, high = int(first), int(last or first)
    if low > high:
        raise ConfigurationError(f"local-epochs {spec} ends before it begins; write {high}-{low}")
    return low, high


def local_epochs(spec: str, *, seed: int, round: int, device: str) -> int:
    """The number that `spec` gives, or one drawn uniformly from its range, such as `3-5` (both ends included).

    >>> local_epochs("2", seed=0, round=1, device="device-00")
    2
    """
    low, high = epoch_range(spec)
    generator = torch_generator(seed, "epochs", round, device)
    return int(torch.randint(low, high + 1, (), generator=generator))


def training_order(config: Config, number: int, device: str) -> TrainingOrder:
    """How a device trains in round `number`, as far as the settings of the federation say it."""
    settings = config.federation
    return TrainingOrder(
        epochs=local_epochs(settings.local_epochs, seed=config.run.seed, round=number, device=device),
        batch_size=settings.local_batch_size,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate * settings.learning_rate_decay ** (number - 1),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        max_gradient_norm=settings.max_gradient_norm,
    )
