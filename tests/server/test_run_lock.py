"""Two runs never write to one folder, and what a dead run leaves is free."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from common.errors import CheckpointError
from server import run_lock
from server.run_folder import RunFolder
from server.run_lock import LOCK_NAME, RunLock
from tests.e2e.conftest import ROOT

HOLDER = """
import sys, time
from pathlib import Path
from server.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_writer_is_told_who_the_first_is(tmp_path: Path, elsewhere: subprocess.Popen[str]) -> None:
    with pytest.raises(CheckpointError, match=f"in use by process {elsewhere.pid} on"):
        RunLock(tmp_path)
    elsewhere.kill()
    elsewhere.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_owner_keeps_nothing(tmp_path: Path, elsewhere: subprocess.Popen[str], number: signal.Signals) -> None:
    elsewhere.send_signal(number)
    elsewhere.wait()
    assert (tmp_path / LOCK_NAME).exists()
    RunLock(tmp_path).release()
    assert not (tmp_path / LOCK_NAME).exists()


def test_who_takes_over_a_dead_owners_lock_is_named_in_it(tmp_path: Path, elsewhere: subprocess.Popen[str]) -> None:
    elsewhere.kill()
    elsewhere.wait()
    lock = RunLock(tmp_path)
    assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    lock.release()


def test_a_stopped_owner_still_owns(tmp_path: Path, elsewhere: subprocess.Popen[str]) -> None:
    elsewhere.send_signal(signal.SIGSTOP)
    with pytest.raises(CheckpointError, match="in use"):
        RunLock(tmp_path)
    elsewhere.kill()
    elsewhere.wait()


def test_released_and_forgotten_locks_are_free(tmp_path: Path) -> None:
    first = RunLock(tmp_path)
    first.release()
    first.release()
    second = RunLock(tmp_path)
    del second
    RunLock(tmp_path).release()


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        lock.release()
        RunLock(tmp_path).release()
    finally:
        child.kill()
        child.wait()


def _owned_by_another_machine(folder: Path, age: float) -> None:
    path = folder / LOCK_NAME
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "boot": "another", "since": "today"}))
    os.utime(path, (time.time() - age,) * 2)


@pytest.fixture
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "WATCH_SECONDS", 0.5)


@pytest.mark.usefixtures("short_watch")
def test_an_owner_on_another_machine_lives_as_long_as_its_heart_beats(tmp_path: Path) -> None:
    _owned_by_another_machine(tmp_path, age=30)
    with pytest.raises(CheckpointError, match="process 1 on 'elsewhere'"):
        RunLock(tmp_path)
    _owned_by_another_machine(tmp_path, age=90)
    RunLock(tmp_path).release()


@pytest.mark.usefixtures("short_watch")
@pytest.mark.parametrize("age", [600.0, -600.0])
def test_a_clock_that_was_set_neither_kills_an_owner_elsewhere_nor_keeps_a_dead_one(tmp_path: Path, age: float) -> None:
    _owned_by_another_machine(tmp_path, age)
    beat = threading.Timer(0.1, os.utime, args=(tmp_path / LOCK_NAME, (time.time() - age + 5,) * 2))
    beat.start()
    with pytest.raises(CheckpointError, match="process 1 on 'elsewhere'"):
        RunLock(tmp_path)
    beat.join()
    _owned_by_another_machine(tmp_path, age)
    RunLock(tmp_path).release()


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "BEAT_SECONDS", 0.05)
    lock = RunLock(tmp_path)
    os.utime(lock.path, (0, 0))
    deadline = time.monotonic() + 10
    while lock.path.stat().st_mtime < 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lock.release()


def test_without_locks_of_the_system_the_heartbeat_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)
    lock = RunLock(tmp_path)
    with pytest.raises(CheckpointError, match="in use"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()


@pytest.mark.parametrize("held_by_others", [False, True])
def test_where_no_open_file_can_be_removed_a_released_lock_is_free_at_once(
    held_by_others: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = RunLock(tmp_path)
    remove = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        """As on Windows."""
        if held_by_others or _is_open(lock._descriptor):
            raise PermissionError(path)
        remove(path, missing_ok)

    monkeypatch.setattr(run_lock, "fcntl", None)
    monkeypatch.setattr(Path, "unlink", unlink)
    lock.release()
    assert (tmp_path / LOCK_NAME).exists() == held_by_others
    RunLock(tmp_path).release()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("short_watch")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "[" * 10_000, "\0"])
def test_a_damaged_lock_of_nobody_is_taken_over(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_NAME).write_text(text)
    os.utime(tmp_path / LOCK_NAME, (0, 0))
    RunLock(tmp_path).release()


def test_a_run_folder_has_one_writer_and_any_number_of_readers(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config({"seed": 0})
    with pytest.raises(CheckpointError, match="in use"), RunFolder.open(folder.path):
        pass
    assert RunFolder.open(folder.path).read_config() == {"seed": 0}
    with folder:
        folder.append("stage", stage="search", seconds=1.0)
        folder.truncate_after(0)  # finishes the files, keeps the folder
        with pytest.raises(CheckpointError, match="in use"), RunFolder.open(folder.path):
            pass
    with RunFolder.open(folder.path):
        pass
    assert sorted(path.name for path in folder.path.iterdir() if path.is_file()) == ["config.toml", "metrics.jsonl"]


def test_who_has_lost_the_folder_leaves_its_next_owner_alone(tmp_path: Path) -> None:
    place = tmp_path / "run"
    first = RunFolder.create(place)
    shutil.rmtree(place)
    second = RunFolder.create(place)
    first.close()
    second.append("note", text="goes on")
    with pytest.raises(CheckpointError, match="in use"):
        RunFolder(place).__enter__()
    second.close()


def test_two_runs_cannot_begin_in_one_folder(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path / "run")
    with pytest.raises(CheckpointError, match="in use"):
        RunFolder.create(tmp_path / "run")
    first.close()
