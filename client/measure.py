"""What this machine can afford, measured: arithmetic speed, memory and storage.

| figure | rule |
|---|---|
| macs_per_second | 3 x forward MACs x batch / seconds of a training step of a small MobileNetV2, median of five |
| memory_bytes | the smallest of installed memory and the memory limits of this process's control groups |
| storage_bytes | free space of the disk that holds the working folder |

A training step counts three forward passes: forward, gradient of the activations, gradient of the weights. The MAC
budget is `macs_per_second` times the target latency; of memory and storage `common.fleet.MODEL_SHARE` may be used, in
float32. The thread count is the process's own, so that a device that gives FedDAC one core reports one core.
"""

import shutil
import statistics
import time
from functools import lru_cache
from pathlib import Path

import torch
from torch.nn import functional as F

from common.architecture import Architecture
from common.costs import costs_of
from common.fleet import DeviceProfile
from common.learning import place
from common.models.description import BaseNetwork

PROBE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, width=0.25)
BATCH = 16
TIMED_STEPS = 5
FORWARD_PASSES_PER_STEP = 3


@lru_cache(maxsize=1)
def measured_profile() -> DeviceProfile:
    """The profile of this machine; measured once per process, in about a second."""
    memory = memory_limit_bytes()
    return DeviceProfile(
        macs_per_second=training_macs_per_second(torch.device("cpu")),
        memory_bytes=memory,
        storage_bytes=shutil.disk_usage(Path.cwd()).free,
        bytes_per_value=4,
        source=f"measured on this machine with {torch.get_num_threads()} threads",
    )


def training_macs_per_second(device: torch.device) -> float:
    """Sustained multiply-accumulates per second while training the probe network; the first step is not timed."""
    architecture = Architecture.full(PROBE)
    module = place(architecture.build(0), device).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, *PROBE.input_shape, generator=generator).to(device, memory_format=torch.channels_last)
    labels = torch.randint(PROBE.classes, (BATCH,), generator=generator).to(device)
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(module(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        float(loss.detach())  # waits for an accelerator
        seconds.append(time.perf_counter() - start)
    work = FORWARD_PASSES_PER_STEP * costs_of(architecture).macs * BATCH
    return work / statistics.median(seconds[1:])


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """Bytes of memory this process may use: installed memory, or less where a control group says so.

    `root` is where `proc` and `sys` are mounted. On systems without them, 1 GiB is assumed.
    """
    limits = [_installed(root / "proc/meminfo"), *map(_limit, _limit_files(root))]
    return min((limit for limit in limits if limit is not None), default=2**30)


def _installed(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    kibibytes = [line.split()[1] for line in lines if line.startswith("MemTotal:")]
    return int(kibibytes[0]) * 1024 if kibibytes else None


def _limit_files(root: Path) -> list[Path]:
    """The limit files of this process's group and all above it: memory.max (v2) or memory.limit_in_bytes (v1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            folder, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = folder / group.strip("/")
        # Inside a container the group's own path is often not mounted, but the root of the mount is its limit.
        files += [place / name for place in (inner, *inner.parents) if place.is_relative_to(folder)]
    return files


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    # v1 writes "no limit" as a number close to 2**63
    return int(text) if text.isdigit() and 0 < int(text) < 2**62 else None
