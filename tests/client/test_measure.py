"""What a machine can afford: its memory limits as control groups give them, and a speed that is a speed."""

from pathlib import Path

import torch

from client.measure import measured_profile, memory_limit_bytes, training_macs_per_second


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
