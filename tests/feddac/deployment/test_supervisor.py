"""What ends a device's processes, and with which exit code and line; the children are scripts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a supervisor needs POSIX")

SCRIPT = """
import sys
from feddac.deployment.supervisor import Supervisor

supernode, warm = sys.argv[1:3]
python = [sys.executable, "-P", "-c"]
sys.exit(Supervisor([*python, supernode], [*python, warm] if warm else None).run())
"""
BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
name = "{name}"
def mark(what):
    Path(f"{{name}}-{{what}}").write_text(str(os.getpid()))
def in_order(*_):
    mark("ended in order")
    sys.exit(0)
"""
IN_ORDER = "signal.signal(signal.SIGTERM, in_order)\nmark('began')\n"
STAY = "time.sleep(60)"


class Device:
    """A supervisor with scripted children, in `folder`, where they leave marks."""

    def __init__(self, folder: Path, supernode: str, warm: str | None) -> None:
        self.folder = folder
        scripts = [
            "" if body is None else BEGIN.format(name=name) + body
            for name, body in (("supernode", supernode), ("warm", warm))
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT, *scripts],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def mark(self, name: str) -> int:
        """The process id in this mark, once it is there."""
        deadline = time.monotonic() + 30
        while not ((path := self.folder / name).exists() and path.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return int(path.read_text())

    def ends(self) -> tuple[int, list[str]]:
        """Its exit code and lines."""
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said.splitlines()


@pytest.fixture
def both_stay(tmp_path: Path) -> Device:
    device = Device(tmp_path, IN_ORDER + STAY, "mark('began')\n" + STAY)
    device.mark("supernode-began"), device.mark("warm-began")
    return device


def test_without_the_warm_process_the_supernode_ends_in_order(both_stay: Device) -> None:
    os.kill(both_stay.mark("warm-began"), signal.SIGKILL)
    code, [line] = both_stay.ends()
    assert code == 1
    assert line.startswith("Error: the process that answers messages was killed (signal 9)")
    both_stay.mark("supernode-ended in order")


@pytest.mark.parametrize("warm", [STAY, None])
def test_a_supernode_that_ends_in_order_though_nobody_asked_is_a_failure_that_names_the_clock(
    warm: str | None, tmp_path: Path
) -> None:
    code, [line] = Device(tmp_path, "sys.exit(0)", warm).ends()
    assert code == 1
    assert line.startswith("Error: the SuperNode ended though nothing on this machine asked it to")
    assert "clock" in line


def test_what_the_supernode_says_of_its_own_end_is_not_said_again(tmp_path: Path) -> None:
    assert Device(tmp_path, "sys.exit(2)", STAY).ends() == (2, [])


def test_a_supernode_that_is_killed(both_stay: Device) -> None:
    os.kill(both_stay.mark("supernode-began"), signal.SIGKILL)
    code, [line] = both_stay.ends()
    assert code == 1
    assert line.startswith("Error: the SuperNode was killed (signal 9)")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_ends_all_in_order(number: signal.Signals, to_all: bool, tmp_path: Path) -> None:
    listens = f"for one in (2, 1, 3): signal.signal(one, in_order)\n{IN_ORDER}{STAY}"
    device = Device(tmp_path, listens, "mark('began')\n" + STAY)
    device.mark("supernode-began"), device.mark("warm-began")
    if to_all:
        os.killpg(device.process.pid, number)
    else:
        device.process.send_signal(number)
    code, lines = device.ends()
    assert (code, [line for line in lines if line.startswith("Error")]) == (0, [])
    device.mark("supernode-ended in order")


def test_who_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nmark('began')\n" + STAY
    device = Device(tmp_path, deaf, deaf)
    device.mark("supernode-began"), device.mark("warm-began")
    device.process.terminate()
    assert device.ends() == (137, [])


def test_a_hang_up_that_is_ignored_stays_so_for_all(tmp_path: Path) -> None:
    ignored = "mark('began')\nif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN: mark('hears')\n" + STAY
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        device = Device(tmp_path, IN_ORDER + ignored, ignored)
    finally:
        signal.signal(signal.SIGHUP, before)
    device.mark("supernode-began"), device.mark("warm-began")
    os.killpg(device.process.pid, signal.SIGHUP)
    time.sleep(1.0)
    assert device.process.poll() is None
    device.process.terminate()
    assert device.ends() == (0, [])
    assert not list(tmp_path.glob("*-hears"))


def test_it_stays_light() -> None:
    look = [sys.executable, "-P", "-c", "import feddac.deployment.supervisor, sys; print(*sys.modules)"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    loaded = subprocess.run(look, capture_output=True, text=True, env=environment, check=True).stdout.split()
    assert not {"flwr", "numpy", "torch", "httpx", "typer", "subprocess"} & set(loaded)
