"""Local training of devices of one cohort together (`--engine batched`) against the same, one after the other.

Eight devices and two sizes of batches; MobileNetV2 of 6.6 million MACs, and the network that is narrowed alike to a
quarter of them. Both sides take turns in one process of one thread; a device draws the same batches on both.
Memory is handled as `feddac` has it (`simulation.environment`). With ACCELERATOR=cuda in the environment both sides
are on the GPU, and seconds are by the clock; DEVICES=16 is for other numbers of devices.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch

from client.data import DeviceData
from client.steps import run_step
from client.training import train_step
from common.architecture import Architecture
from common.budget import DeviceBudget
from common.data.augment import Preprocessor
from common.data.images import Images
from common.messages import Task
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork
from dac.scaling import uniform
from simulation.environment import restart_with_cpu_tuning

DEVICES = int(os.environ.get("DEVICES", "8"))
BATCHES = 4
REPEATS = 7
ACCELERATOR = torch.device(os.environ.get("ACCELERATOR", "cpu"))
BASE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1))
NAMES = [f"device-{number:02}" for number in range(DEVICES)]


def sides(architecture: Architecture, batch: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Training one by one, and together."""
    from client.batched.jobs import JOBS
    from client.batched.training import Member, train_members
    from client.batched.trial import template_of
    from client.steps import dropout_seed, here_of

    weights = architecture.layout.flatten(architecture.build(0).state_dict())
    order = TrainingOrder(batch_size=batch, momentum=0.5)
    task = Task("fedavg", TRAIN, 1, architecture, order.to_mapping(), {"weights": weights})
    preprocessor = Preprocessor(torch.full((3,), 0.5), torch.full((3,), 0.25), "crop+flip")
    pixels = torch.randint(0, 256, (BATCHES * batch, 3, 32, 32), dtype=torch.uint8)
    data = DeviceData(Images(pixels, torch.arange(BATCHES * batch) % 10), None, preprocessor)

    def one_by_one() -> object:
        return [run_step({TRAIN: train_step}, task, data, name, ACCELERATOR) for name in NAMES]

    def together() -> object:
        template = template_of(architecture)
        assert not isinstance(template, str)
        members = [
            Member(
                JOBS[train_step](task), here_of(task, data, name, ACCELERATOR, lambda: None), dropout_seed(task, name)
            )
            for name in NAMES
        ]
        return train_members(template, architecture.layout, architecture.classes, members)

    return one_by_one, together


def main() -> None:
    restart_with_cpu_tuning()
    torch.set_num_threads(1)
    clock = time.process_time if ACCELERATOR.type == "cpu" else time.perf_counter
    full = Architecture.full(BASE)
    figures = {}
    for name, architecture in {
        "6.6 million MACs": full,
        "a quarter of them": uniform(BASE, DeviceBudget(macs=full.costs.macs // 4)),
    }.items():
        for batch in (16, 32):
            runs = sides(architecture, batch)
            seconds: list[list[float]] = [[], []]
            for _ in range(REPEATS):
                for run, kept in zip(runs, seconds, strict=True):
                    start = clock()
                    run()
                    kept.append(clock() - start)
            alone, beside = (statistics.median(times[1:]) for times in seconds)
            images = DEVICES * BATCHES * batch
            figures[f"{name}, batches of {batch}, one by one: images/s"] = images / alone
            figures[f"{name}, batches of {batch}, together: images/s"] = images / beside
            figures[f"{name}, batches of {batch}: one by one's time / together's"] = alone / beside
    print(json.dumps(figures))


if __name__ == "__main__":
    if find_spec("client.batched") is None:
        print("{}")  # a checkout from before there was such an engine
    else:
        main()
