"""What surrounds every step of every method on a device: what it is given, seeds, the deadline, and what it took."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from client.data import DeviceData
from client.deadline import deadline
from client.models import require_fit
from common.arrays import Arrays
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import MessageError
from common.messages import Result, Task
from common.process import peak_rss_bytes
from common.seeds import derive_seed, seeded, torch_generator


@dataclass(frozen=True)
class Here:
    """Where a step runs: the device's images and how they are prepared, its accelerator, its randomness, its deadline.

    `generator` follows from the run's seed, the step, the round and the device's name; torch's global ones, from
    which dropout draws, are seeded the same way. `check_deadline` raises FederationError when the time is over.
    """

    images: Images
    preprocessor: Preprocessor
    accelerator: torch.device
    generator: torch.Generator
    check_deadline: Callable[[], None]


@dataclass(frozen=True)
class Work:
    """What a step made: the arrays that go back, and the mean loss of its last pass over the images.

    `seconds` is what it took, where that is not the time since the step was called.
    """

    arrays: Arrays
    loss: float
    seconds: float | None = None


Step: TypeAlias = Callable[[Task, Here], Work]
"""Raises a FedDACError for a task that this device cannot carry out."""


def run_step(steps: Mapping[str, Step], task: Task, data: DeviceData, device: str, accelerator: torch.device) -> Result:
    """The answer of the device of this name to a task.

    Raises MessageError for an unknown step or images that do not fit, FederationError for a missed deadline, and
    whatever the step raises.
    """
    if task.step not in steps:
        raise MessageError(f"method {task.method} has no step {task.step!r:.40} on devices")
    require_fit(task.network, data.train)
    start = time.perf_counter()
    with (
        deadline(task.deadline_seconds, f"finish step {task.step}") as check_deadline,
        seeded(dropout_seed(task, device), accelerator),
    ):
        work = steps[task.step](task, here_of(task, data, device, accelerator, check_deadline))
    return Result(
        method=task.method,
        step=task.step,
        round=task.round,
        samples=len(data.train),
        loss=work.loss,
        seconds=time.perf_counter() - start if work.seconds is None else work.seconds,
        peak_rss_bytes=peak_rss_bytes(),
        arrays=work.arrays,
    )


def here_of(
    task: Task, data: DeviceData, device: str, accelerator: torch.device, check_deadline: Callable[[], None]
) -> Here:
    """Where the device of this name does the task."""
    generator = torch_generator(task.seed, task.step, task.round, device)
    return Here(data.train, data.preprocessor, accelerator, generator, check_deadline)


def dropout_seed(task: Task, device: str) -> int:
    """The seed of torch's global generators while the device of this name does the task."""
    return derive_seed(task.seed, task.step, task.round, device, "dropout")
