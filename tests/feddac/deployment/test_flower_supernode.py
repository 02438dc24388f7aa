"""A SuperNode whose connection is lost ends, whatever threads it has; Flower's own code is a script here."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a supervisor needs POSIX")

BEGIN = """
import os, signal, sys, threading, time
from types import SimpleNamespace
from feddac.deployment.flower_supernode import Watched

class Refused(Exception):
    def __init__(self, status):
        super().__init__(f"answered {status}\\nand more")
        self.response = SimpleNamespace(status_code=status)

def fail(status):
    raise Refused(status)

def serve():
    time.sleep(30)

def in_order(number, frame):
    signal.signal(signal.SIGTERM, watched._ask), signal.signal(signal.SIGINT, watched._ask)
    watched.leave()
    print("begins", flush=True)
    time.sleep(1.0)
    print("ended in order", flush=True)
    sys.exit(0)

def flower():
    threading.Thread(target=serve).start()  # as the Runtime API's, which is no daemon
    signal.signal(signal.SIGTERM, in_order), signal.signal(signal.SIGINT, in_order)
    print("began", flush=True)
    body()

def body():
"""
END = """
watched = Watched(flower)
watched.run()
"""
HEARTBEAT = "threading.Thread(target=fail, args=({status},), daemon=True).start(); time.sleep(30)"


def start(body: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-c", f"{BEGIN}    {body}\n{END}"]
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("Error: ")]


def test_a_heartbeat_that_fails_ends_it_in_order_and_with_a_failure() -> None:
    process = start(HEARTBEAT.format(status=500))
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert out.splitlines() == ["began", "begins", "ended in order"]
    assert errors(err) == ["Error: the SuperNode has lost its connection: Refused: answered 500"]


def test_a_heartbeat_that_is_turned_away_is_left_to_flower_which_ends_itself() -> None:
    process = start(HEARTBEAT.format(status=401))
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, errors(err)) == (0, [])


def test_a_main_thread_that_gives_up_ends_it() -> None:
    process = start("print('giving up', file=sys.stderr)")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors(err) == ["Error: the SuperNode has given up its connection; the lines above say why"]


def test_a_main_thread_that_raises_ends_it() -> None:
    process = start("raise RuntimeError('port taken')")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "RuntimeError: port taken" in err


@pytest.mark.parametrize("body", ["sys.exit(2)", "sys.exit('no such file')"])
def test_an_exit_code_is_kept(body: str) -> None:
    process = start(body)
    process.communicate(timeout=20)
    assert process.returncode == (2 if "2" in body else 1)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_comes_twice_does_not_cut_the_end_short(first: signal.Signals) -> None:
    process = start("time.sleep(30)")
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    process.send_signal(first)
    assert process.stdout.readline() == "begins\n"
    for number in (first, signal.SIGTERM):
        process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, errors(err)) == (0, "ended in order\n", [])


def test_a_signal_before_flower_listens_ends_it_too(tmp_path: Path) -> None:
    process = start("signal.signal(signal.SIGTERM, watched._ask); print('ready', flush=True); time.sleep(30)")
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        pass
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
