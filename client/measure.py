"""What this machine can afford, measured: arithmetic speed, memory and storage.

| figure | unit | rule |
|---|---|---|
| macs_per_second | MAC/s | 3 x forward MACs x batch / seconds of a small MobileNetV2's training step, median of five |
| memory_bytes | bytes | the smallest of installed memory and the memory limits of this process's control groups |
| storage_bytes | bytes | free space on the disk of the working folder, at most memory_bytes, which holds parameters |

A training step counts three forward passes: forward, gradient of the activations, gradient of the weights. The budget
follows from `common.fleet.DeviceProfile.budget`: macs = macs_per_second x target latency in seconds, and of memory and
storage `common.fleet.MODEL_SHARE` in float32. A latency per image, and not the time of a round, is the target, because
a round also depends on how many images a device holds and how many epochs a run asks for, which no hardware knows. It
bounds the round all the same: n images and e epochs take at most 3 x latency x n x e (`seconds_per_epoch`).

The thread count is the process's own, so that a device that gives FedDAC one core reports one core. Measuring stops
after a few seconds on slow machines, which then have fewer steps to take the median of, but at least one.
"""

import re
import shutil
import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn import functional as F

from common.architecture import Architecture
from common.fleet import DeviceProfile
from common.learning import place
from common.models.description import BaseNetwork

PROBE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, width=0.25)
BATCH = 16
TIMED_STEPS = 5
LONGEST_SECONDS = 3.0
FORWARD_PASSES_PER_STEP = 3


@lru_cache(maxsize=1)
def measured_profile() -> DeviceProfile:
    """The profile of this machine; measured once per process, in about a second (see LONGEST_SECONDS)."""
    memory = memory_limit_bytes()
    return DeviceProfile(
        macs_per_second=training_macs_per_second(torch.device("cpu")),
        memory_bytes=memory,
        storage_bytes=min(shutil.disk_usage(Path.cwd()).free, memory),
        bytes_per_value=4,
        source=f"measured on this machine with {torch.get_num_threads()} threads",
    )


def seconds_per_epoch(target_latency_ms: float, images: int) -> float:
    """The longest that one pass over `images` takes with a model that uses its whole MAC budget.

    >>> seconds_per_epoch(20.0, 1000)
    60.0
    """
    return FORWARD_PASSES_PER_STEP * target_latency_ms * images / 1000


def training_macs_per_second(accelerator: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    """Sustained multiply-accumulates per second while training the probe network.

    The first step, which also allocates, is left out. No step begins later than LONGEST_SECONDS after the first, except
    the second.
    """
    architecture = Architecture.full(PROBE)
    module = place(architecture.build(0), accelerator).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, *PROBE.input_shape, generator=generator).to(
        accelerator, memory_format=torch.channels_last
    )
    labels = torch.randint(PROBE.classes, (BATCH,), generator=generator).to(accelerator)
    seconds: list[float] = []
    begin = clock()
    while len(seconds) < 2 or (len(seconds) < 1 + TIMED_STEPS and clock() - begin < LONGEST_SECONDS):
        start = clock()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(module(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(loss.detach())  # waits for an accelerator
        seconds.append(clock() - start)
    work = FORWARD_PASSES_PER_STEP * architecture.costs.macs * BATCH
    return work / statistics.median(seconds[1:])


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory this process may use: installed memory, or less where a control group says so.

    `root` is where `proc` and `sys` are mounted. On systems without them, 1 GiB is assumed.
    """
    limits = [_installed(root / "proc/meminfo"), *map(_limit, _limit_files(root))]
    return min((limit for limit in limits if limit is not None), default=2**30)


def _installed(meminfo: Path) -> int | None:
    try:
        text = meminfo.read_text(errors="replace")
    except OSError:
        return None
    match = re.search(r"^MemTotal:\s+([0-9]+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def _limit_files(root: Path) -> list[Path]:
    """The limit files of this process's group and all above it: memory.max (v2) or memory.limit_in_bytes (v1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) < 3:
            continue
        _, controllers, group = parts
        if controllers == "":
            folder, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = folder / group.strip("/")
        # In a container the own path is often not mounted, or begins with "..", but the mount's root is its limit.
        files += [place / name for place in (inner, *inner.parents) if place.is_relative_to(folder)]
    return files


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text(errors="replace").strip()
    except OSError:
        return None
    # v1 writes "no limit" as a number close to 2**63
    return int(text) if text.isdecimal() and 0 < int(text) < 2**62 else None
