"""What a machine can afford: its memory limits as control groups give them, and a speed that is a speed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from client.measure import (
    BATCH,
    FORWARD_PASSES_PER_STEP,
    LONGEST_SECONDS,
    PROBE,
    TIMED_STEPS,
    measured_profile,
    memory_limit_bytes,
    seconds_per_epoch,
    training_macs_per_second,
)
from common.architecture import Architecture


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def machine(root: Path, cgroup: str) -> Path:
    write(root / "proc/meminfo", "MemTotal:        8000000 kB\nMemFree:         1000000 kB\n")
    write(root / "proc/self/cgroup", cgroup)
    return root


def test_without_a_limit_the_installed_memory_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/user.slice\n")
    write(root / "sys/fs/cgroup/user.slice/memory.max", "max\n")
    assert memory_limit_bytes(root) == 8_000_000 * 1024


def test_the_tightest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/user.slice/session\n")
    write(root / "sys/fs/cgroup/user.slice/session/memory.max", "3000000\n")
    write(root / "sys/fs/cgroup/user.slice/memory.max", "2000000\n")
    write(root / "sys/fs/cgroup/memory.max", "max\n")
    assert memory_limit_bytes(root) == 2_000_000


def test_in_a_container_the_root_of_the_mount_is_the_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n")
    write(root / "sys/fs/cgroup/memory.max", "536870912\n")
    assert memory_limit_bytes(root) == 2**29


def test_version_1_groups_are_read_and_their_no_limit_is_none(tmp_path: Path) -> None:
    root = machine(tmp_path, "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n")
    folder = root / "sys/fs/cgroup/memory"
    write(folder / "memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit_bytes(root) == 8_000_000 * 1024
    write(folder / "docker/abc/memory.limit_in_bytes", "1000000\n")
    assert memory_limit_bytes(root) == 1_000_000


def test_a_machine_that_tells_nothing_is_assumed_to_have_a_gibibyte(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path) == 2**30


def test_this_machine_has_a_budget() -> None:
    profile = measured_profile()
    budget = profile.budget(target_latency_ms=20.0)
    assert budget.macs == int(profile.macs_per_second * 0.02)
    assert budget.params == int(0.75 * profile.storage_bytes) // 4
    assert profile.memory_bytes <= memory_limit_bytes()


def test_the_speed_is_between_a_microcontrollers_and_a_supercomputers() -> None:
    assert 1e6 < training_macs_per_second(torch.device("cpu")) < 1e15


@pytest.mark.parametrize(
    "cgroup", ["", "\n", "nonsense\n", "0:\n", "0::/../../outside\n", "0::/../..\n", "4:memory\n", "\udcff::/x\n"]
)
def test_a_group_file_that_cannot_be_understood_is_no_limit(cgroup: str, tmp_path: Path) -> None:
    write(tmp_path / "proc/meminfo", "MemTotal:        8000000 kB\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(cgroup.encode(errors="surrogateescape"))
    assert memory_limit_bytes(tmp_path) == 8_000_000 * 1024


def test_a_group_outside_the_namespace_still_has_the_limit_of_the_mount(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/../../docker/abc\n")
    write(root / "sys/fs/cgroup/memory.max", "268435456\n")
    assert memory_limit_bytes(root) == 2**28


@pytest.mark.parametrize("meminfo", ["", "MemTotal:\n", "MemTotal: many kB\n", "MemFree: 5 kB\n"])
def test_damaged_memory_information_is_none(meminfo: str, tmp_path: Path) -> None:
    write(tmp_path / "proc/meminfo", meminfo)
    assert memory_limit_bytes(tmp_path) == 2**30


@pytest.mark.parametrize("text", ["", "max", "0", "-1", "lots", "9223372036854771712"])
def test_a_limit_that_is_none_does_not_bind(text: str, tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n")
    write(root / "sys/fs/cgroup/memory.max", text)
    assert memory_limit_bytes(root) == 8_000_000 * 1024


def clock_of(durations: Iterator[float]) -> Callable[[], float]:
    """A clock on which each training step takes the next of `durations`, and everything else no time.

    It is read once at the beginning, twice in each step, and once before each step but the first two.
    """
    now, reads = 0.0, 0

    def read() -> float:
        nonlocal now, reads
        reads += 1
        # reads 2 and 3, and 4 and 5, are the first two steps; from then on the limit is looked at before each step
        if reads in (3, 5) or (reads > 5 and reads % 3 == 2):
            now += next(durations)
        return now

    return read


def work() -> int:
    """MACs of one step of the probe."""
    return FORWARD_PASSES_PER_STEP * Architecture.full(PROBE).costs.macs * BATCH


def test_the_speed_follows_from_the_median_step_and_the_first_does_not_count() -> None:
    durations = [9.0, 0.2, 0.1, 0.3, 0.25, 0.15]
    assert len(durations) == 1 + TIMED_STEPS
    # the long first step uses up the time, so only the second, of 0.2 s, is timed
    assert training_macs_per_second(torch.device("cpu"), clock_of(iter(durations))) == pytest.approx(work() / 0.2)
    durations[0] = 0.4
    assert training_macs_per_second(torch.device("cpu"), clock_of(iter(durations))) == pytest.approx(work() / 0.2)


def test_on_a_slow_machine_fewer_steps_are_timed() -> None:
    steps = iter([1.0, 1.0, LONGEST_SECONDS, 100.0, 100.0, 100.0])
    expected = work() / ((1.0 + LONGEST_SECONDS) / 2)
    assert training_macs_per_second(torch.device("cpu"), clock_of(steps)) == pytest.approx(expected)
    assert next(steps) == 100.0


def test_the_latency_bounds_the_time_of_an_epoch() -> None:
    profile = measured_profile()
    macs = profile.budget(20.0).macs
    assert macs is not None
    per_image = FORWARD_PASSES_PER_STEP * macs / profile.macs_per_second
    assert 1000 * per_image == pytest.approx(seconds_per_epoch(20.0, 1000), rel=1e-6) == 60.0


def test_parameters_are_held_in_memory_so_storage_is_no_larger() -> None:
    profile = measured_profile()
    assert profile.storage_bytes <= profile.memory_bytes
