"""What a machine can afford: its memory limits as control groups give them, and a speed that is a speed."""

from pathlib import Path

import pytest

from client.measure import measured_profile, memory_limit_bytes
from common.handshake import DeviceReport
from common.rates import LatencyBound


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
    budget = profile.budget(20.0)
    assert budget.latency == LatencyBound.by(profile.rates, 20.0)
    assert budget.training_memory_bytes == int(0.75 * profile.memory_bytes)
    assert budget.params == int(0.75 * profile.storage_bytes) // 4
    report = DeviceReport("camera", "measured", 0, 9, budget)
    assert DeviceReport.decode(report.encode()) == report
    assert profile.memory_bytes <= memory_limit_bytes()


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


def test_parameters_are_held_in_memory_so_storage_is_no_larger() -> None:
    profile = measured_profile()
    assert profile.storage_bytes <= profile.memory_bytes
