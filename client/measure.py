"""What this machine can afford, measured: how fast it is, memory and storage.

| figure | unit | rule |
|---|---|---|
| rates | seconds | per call, multiply-accumulate and value of each kind of operation: `client.speed` |
| memory_bytes | bytes | the smallest of installed memory and the memory limits of this process's control groups |
| storage_bytes | bytes | free space on the disk of the working folder, at most memory_bytes, which holds parameters |

The budget follows from `common.fleet.DeviceProfile.budget`. The thread count is the process's own, so that a device
that gives FedDAC one core reports one core.
"""

import re
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from client.speed import measured_rates
from common.data.images import Images
from common.fleet import DeviceProfile
from common.groups import AUTO_STRIDES, ModelSettings
from common.models import allow_network
from common.models.description import BaseNetwork
from common.search_space import SearchSpace

PROBE = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)
PUBLISHED = SearchSpace()


@lru_cache(maxsize=4)
def measured_profile(base: BaseNetwork = PROBE, space: SearchSpace = PUBLISHED) -> DeviceProfile:
    """The profile of this machine for parts of a network that `space` holds; measured once per process, in seconds."""
    memory = memory_limit_bytes()
    return DeviceProfile(
        rates=measured_rates(base, space),
        memory_bytes=memory,
        storage_bytes=min(shutil.disk_usage(Path.cwd()).free, memory),
        bytes_per_value=4,
        source=f"measured on parts of {base.model}, threads: {torch.get_num_threads()}",
        trains=True,
    )


def network_to_measure(settings: ModelSettings, images: Images) -> BaseNetwork:
    """The network of the settings for such images, as far as a device knows it.

    Strides that the server is yet to choose are the published ones, and classes those that the device has images of:
    rates are those of kinds of operations, which do not depend on either.
    """
    allow_network(settings.model)
    _, channels, height, width = images.images.shape
    classes = int(images.labels.max()) + 1
    base = BaseNetwork(settings.model, (channels, height, width), classes, settings.width)
    chosen = settings.strides != AUTO_STRIDES
    strides = tuple(map(int, settings.strides.split(","))) if chosen else base.strides
    return replace(base, stem_stride=settings.stem_stride or base.stem_stride, strides=strides)


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
