"""Processes: their logs, their end, and the end of what they started."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import FederationError
from feddac.deployment.processes import Process, flower_environment, free_ports, program, stop

SLEEP = "import time; time.sleep(100)"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
print(child.pid, flush=True)
child.wait()
"""
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {SLEEP}"


def started(folder: Path, code: str, name: str = "worker") -> Process:
    process = Process(name, [sys.executable, "-c", code], folder, flower_environment(folder / "flower"))
    while not process.log.read_text() and "print" in code:
        time.sleep(0.01)
    return process


def is_running(pid: int) -> bool:
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(shown.strip()) and not shown.strip().startswith("Z")


def ends(pid: int) -> bool:
    """Whether the process, which has been killed, is gone: the system takes it down in its own time."""
    for _ in range(500):
        if not is_running(pid):
            return True
        time.sleep(0.02)
    return False


def test_stopping_a_process_stops_what_it_started(tmp_path: Path) -> None:
    process = started(tmp_path, PARENT)
    child = int(process.log.read_text())
    assert is_running(child)
    stop([process])
    assert process.exit_code == -signal.SIGTERM
    assert ends(child)


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    process = started(tmp_path, STUBBORN)
    stop([process], grace=0.1)
    assert process.exit_code == -signal.SIGKILL


def test_children_of_a_process_that_died_are_stopped_too(tmp_path: Path) -> None:
    process = started(tmp_path, PARENT)
    child = int(process.log.read_text())
    subprocess.run(["kill", "-KILL", str(process.pid)], check=True)
    process.wait(10)
    assert is_running(child)
    stop([process])
    assert ends(child)


def test_a_process_sees_its_own_flower_home_and_works_in_its_folder(tmp_path: Path) -> None:
    process = started(tmp_path, "import os; print(os.environ['FLWR_HOME'], os.getcwd())")
    assert process.wait(20) == 0
    assert process.last_lines() == f"{tmp_path / 'flower'} {tmp_path}"


def test_a_program_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="flower-nothing is not installed"):
        program("flower-nothing")
    with pytest.raises(FederationError, match="cannot start /nowhere"):
        Process("worker", ["/nowhere"], tmp_path, {})


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_supernode_whose_port_is_taken_is_one_line_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [program("flower-supernode"), "--insecure", "--superlink", "127.0.0.1:1", "--port", str(port)]
        process = Process("supernode-00", command, tmp_path, flower_environment(tmp_path / "flower"))
        process.wait(60)
    with pytest.raises(FederationError) as caught:
        process.require_running()
    assert str(caught.value) == (
        f"supernode-00 cannot listen on 127.0.0.1:{port}, which another program took meanwhile; start again"
    )
