"""A device that could not answer any more, though Flower's SuperNode would go on or end as if all were well, fails."""

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from feddac.deployment.control import Control
from feddac.deployment.processes import Process, flower_environment, free_ports, stop
from tests.feddac.deployment.conftest import Deployment
from tests.feddac.deployment.test_faults import children

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux"),
]

SECONDS = 120.0
COMPILER = shutil.which("cc")


def error_of(device: Process) -> str:
    """The one line of ours in its log."""
    [line] = [line for line in device.log.read_text().splitlines() if line.startswith("Error: ")]
    return line


def test_a_device_whose_warm_process_is_killed_fails_and_is_offline(deploy: Callable[..., Deployment]) -> None:
    federation = deploy(devices=["deaf", "honest"]).federation
    device = federation.supernodes["deaf"]
    [warm] = children(device, "feddac.deployment.warm")
    os.kill(warm, signal.SIGKILL)
    assert device.wait(SECONDS) == 1
    assert "the process that answers messages was killed (signal 9)" in error_of(device)
    assert children(device, "feddac.deployment") == []
    with Control(federation.address) as control:
        assert len(control.nodes_online()) == 1
    assert federation.supernodes["honest"].exit_code is None


def test_a_superlink_that_cannot_write_its_database_for_a_while(deploy: Callable[..., Deployment]) -> None:
    federation = deploy(devices=["deaf"]).federation
    device, superlink = federation.supernodes["deaf"], federation.superlink
    assert superlink is not None
    before = resource.prlimit(superlink.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(superlink.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    assert device.wait(SECONDS) == 1
    said = error_of(device)
    assert "has lost its connection" in said or "has given up its connection" in said
    resource.prlimit(superlink.pid, resource.RLIMIT_FSIZE, before)
    federation.start_supernode(0)
    federation.wait_until_connected()


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
@pytest.mark.parametrize("late", [False, True], ids=["at its start", "set later"])
def test_a_clock_that_does_not_agree_is_named(late: bool, deploy: Callable[..., Deployment], tmp_path: Path) -> None:
    federation = deploy(devices=["honest"]).federation
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    source = str(Path(__file__).with_name("clock.c"))
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", str(library), source], check=True)
    month = struct.pack("<q", -30 * 24 * 3600)
    offset.write_bytes(bytes(8) if late else month)
    device = Process(
        "elsewhere",
        [
            *(sys.executable, "-P", "-m", "feddac.deployment.supernode", "--insecure"),
            *("--superlink", federation.address, "--port", str(free_ports(1)[0])),
        ],
        tmp_path / "deployment",
        flower_environment(tmp_path / "home", {"CLOCK_OFFSET": str(offset), "LD_PRELOAD": str(library)}),
    )
    try:
        if late:
            with Control(federation.address) as control:
                while len(control.nodes_online()) < 2:
                    assert device.exit_code is None
            with offset.open("r+b") as file:  # in place, for it is mapped into the process
                file.write(month)
        assert device.wait(SECONDS) == 1
        assert "Does this machine's clock agree" in error_of(device)
    finally:
        stop([device])
