"""The processes of runs end with whoever started them, on every system."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from feddac.comparison import processes


@pytest.fixture
def run() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that sleeps, in a group of its own."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_what_is_active_when_the_block_is_left_has_ended(run: "subprocess.Popen[bytes]") -> None:
    with processes.ended_at_exit([run]):
        assert run.poll() is None
    assert run.returncode in (-signal.SIGINT, 1)


def test_in_a_thread_too_which_cannot_handle_signals(run: "subprocess.Popen[bytes]") -> None:
    with ThreadPoolExecutor(1) as pool:

        def left() -> None:
            with processes.ended_at_exit([run]):
                assert run.poll() is None

        pool.submit(left).result()
    assert run.returncode in (-signal.SIGINT, 1)


def test_a_system_without_process_groups_and_sigkill_ends_them_too(
    run: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    known = SimpleNamespace(SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, signal=signal.signal)
    monkeypatch.delattr(os, "killpg")
    monkeypatch.setattr(processes, "signal", known)  # as on Windows, which has no SIGKILL
    with processes.ended_at_exit([run]):
        assert run.poll() is None
    assert run.returncode == -signal.SIGTERM


def test_by_force_where_there_are_no_process_groups(
    run: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "killpg")
    processes.send(run, processes.KILL)
    assert run.wait(10) == -signal.SIGKILL
