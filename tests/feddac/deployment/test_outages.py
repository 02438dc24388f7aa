"""Outages longer than Flower's patience: the run is cut off, started again, and ends with the same weights."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feddac.deployment import follow as following
from feddac.deployment import leftovers
from feddac.deployment.control import RunStatus
from feddac.deployment.follow import run_to_the_end
from tests.e2e.conftest import weights_of
from tests.feddac.deployment.test_killed import LONG, Up, undisturbed

__all__ = ["undisturbed"]

AWAY_SECONDS = 90.0
LOST = RunStatus("finished", "failed", "No heartbeat received from the task")
IN_USE = RunStatus("finished", "failed", "ServerApp failed with exception: /run is in use by process 7 on 'x'")
WRONG = RunStatus("finished", "failed", "ServerApp failed with exception: no device reported")
DONE = RunStatus("finished", "completed", "")


@pytest.mark.parametrize(
    ("ends", "expected", "runs"),
    [
        ([DONE], DONE, 1),
        ([WRONG], WRONG, 1),
        ([IN_USE], IN_USE, 1),  # somebody else's run, not one that was cut off
        ([LOST, DONE], DONE, 2),
        ([LOST, IN_USE, IN_USE, DONE], DONE, 4),
        ([LOST, WRONG], WRONG, 2),
        ([LOST] * 9, LOST, 6),
    ],
)
def test_only_what_an_outage_has_cut_off_is_started_again(
    ends: list[RunStatus], expected: RunStatus, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    remaining, shown, started = iter(ends), list[str](), list[int]()

    class Link:
        """Stands for a SuperLink: numbers the runs."""

        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> "Link":
            return self

        def __exit__(self, *_: object) -> None: ...
        def start_run(self, bundle: bytes) -> int:
            assert bundle == b"app"
            return len(started) + 1

    monkeypatch.setattr(following, "Control", Link)
    monkeypatch.setattr(following, "follow", lambda *_: next(remaining))
    monkeypatch.setattr(following, "_HAND_OVER_SECONDS", 0.0)
    status = run_to_the_end("x:1", None, b"app", shown.append, started=started.append)
    assert status == expected
    assert started == list(range(1, runs + 1))
    assert len(shown) == runs - 1


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    leftovers.end(tmp_path / "up" / "deployment", 5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("program", ["flower-superlink", "flwr-serverapp"])
def test_paused_for_ninety_seconds_and_the_run_still_ends_with_the_same_weights(
    program: str, workplace: Path, undisturbed: dict[str, bytes]
) -> None:
    up = Up(workplace, *LONG, "--out", "up")
    up.read_until("rounds: round 1: mean accuracy")
    paused = [
        process
        for process in leftovers.find(up.folder / "deployment")
        if program in Path(f"/proc/{process}/cmdline").read_text()
    ]
    assert paused
    for process in paused:
        os.kill(process, signal.SIGSTOP)
    time.sleep(AWAY_SECONDS)
    for process in paused:
        os.kill(process, signal.SIGCONT)
    up.read_until("rounds: round 3: mean accuracy")
    assert up.process.wait(120) == 0
    assert weights_of(up.folder) == undisturbed
