"""What real machines do to a federation: they pause, lose their network, their data or their memory.

All with the real processes, and each for longer than Flower waits for a heartbeat. The lines that a user then sees are
those of the table in docs/deployment.md.
"""

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feddac.deployment import leftovers
from feddac.deployment.bundle import app_bundle
from feddac.deployment.follow import run_to_the_end
from tests.e2e.conftest import feddac, weights_of
from tests.feddac.deployment.conftest import Deployment
from tests.feddac.deployment.test_faults import children, simulated_weights
from tests.feddac.deployment.test_killed import LONG, Up, undisturbed
from tests.feddac.deployment.test_up import RUN
from tests.shades import write_shades

__all__ = ["undisturbed"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PAUSE_SECONDS = 90.0
AWAY_SECONDS = 120.0
PATIENCE_SECONDS = 300.0
JUMP_SECONDS = 600
COMPILER = shutil.which("cc")


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    leftovers.end(tmp_path / "up" / "deployment", 5)


def processes(up: Up, program: str) -> list[int]:
    """Those of the federation whose command line holds `program`."""
    found = []
    for process in leftovers.find(up.folder / "deployment"):
        try:
            if program in Path(f"/proc/{process}/cmdline").read_text():
                found.append(process)
        except OSError:
            continue
    return sorted(found)


def wait_for_processes(up: Up, program: str) -> list[int]:
    """The same, once there is one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := processes(up, program)):
        assert time.monotonic() < deadline, up.lines
        time.sleep(0.05)
    return found


@pytest.fixture
def set_clock(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Move the time of day, by so many seconds in all, that every process sees which is started from now on."""
    library, offset = workplace / "clock.so", workplace / "offset"
    source = str(Path(__file__).with_name("clock.c"))
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", str(library), source], check=True)
    offset.write_bytes(bytes(8))
    monkeypatch.setenv("CLOCK_OFFSET", str(offset))
    monkeypatch.setenv("LD_PRELOAD", str(library))

    def set_by(seconds: int) -> None:
        with offset.open("r+b") as file:  # in place, for it is mapped into every process
            file.write(struct.pack("<q", seconds))

    return set_by


@pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs a C compiler on Linux")
@pytest.mark.parametrize("jump", [JUMP_SECONDS, -JUMP_SECONDS])
@pytest.mark.parametrize("tls", [[], ["--tls"]], ids=["plain", "tls"])
def test_the_clock_of_the_whole_machine_is_set_by_ten_minutes(
    jump: int, tls: list[str], workplace: Path, set_clock: Callable[[int], None], undisturbed: dict[str, bytes]
) -> None:
    up = Up(workplace, *LONG, *tls, "--out", "up")
    up.read_until("rounds: round 1: mean accuracy")
    set_clock(jump)
    up.lines += list(up.process.stderr or [])
    print("".join(up.lines))
    assert up.process.wait() == 0
    assert sum("rounds: round 3: mean accuracy" in line for line in up.lines) == 1
    assert rounds_of(up.folder) == [1, 2, 3]
    assert weights_of(up.folder) == undisturbed


def test_twenty_supernodes_at_once_and_every_device_trains_as_in_a_simulation(workplace: Path) -> None:
    flags = [*RUN, "--devices", "20"]
    up = Up(workplace, *flags, "--out", "up")
    up.lines += list(up.process.stderr or [])
    assert up.process.wait() == 0, up.lines
    assert sum(line.startswith("connected: device-") for line in up.lines) == 20
    assert sum(len(event["trained"]) for event in Deployment.events_of(up.folder, "round")) == 20
    whole = feddac(["simulate", "--engine", "inline", *flags, "--out", "whole"], workplace)
    assert whole.returncode == 0, whole.stderr
    assert weights_of(up.folder) == weights_of(workplace / "whole")


def rounds_of(folder: Path) -> list[int]:
    """The rounds in the metrics, in the order in which they stand there."""
    return [event["round"] for event in Deployment.events_of(folder, "round")]


@pytest.mark.parametrize("program", ["flower-supernode", "feddac.deployment.warm", "flower-superexec", "feddac up"])
def test_whatever_is_paused_for_ninety_seconds_the_run_ends_with_every_round(program: str, workplace: Path) -> None:
    up = Up(workplace, *LONG, "--out", "up")
    up.read_until("rounds: round 1: mean accuracy")
    paused = [up.process.pid] if program == "feddac up" else wait_for_processes(up, program)[:1]
    for process in paused:
        os.kill(process, signal.SIGSTOP)
    time.sleep(PAUSE_SECONDS)
    for process in paused:
        with contextlib.suppress(ProcessLookupError):  # the run may have ended without the one that was paused
            os.kill(process, signal.SIGCONT)
    up.read_until("rounds: round 3: mean accuracy")
    assert up.process.wait(PATIENCE_SECONDS) == 0
    print("".join(up.lines))
    assert rounds_of(up.folder) == [1, 2, 3]


def test_a_superlink_that_is_away_for_two_minutes_and_the_run_ends_with_the_same_weights(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    deployment = deploy(rounds=3)
    federation = deployment.federation
    away = False

    def check() -> None:
        nonlocal away
        if not away and deployment.events("round"):
            away = True
            assert federation.superlink is not None
            federation.superlink.signal(signal.SIGKILL)
            time.sleep(AWAY_SECONDS)
            federation.start_superlink()

    status = run_to_the_end(federation.address, None, app_bundle(deployment.config), deployment.log.append, check)
    print("\n".join(deployment.log))
    assert status.completed, deployment.log
    deployment.require_whole(rounds=3)
    assert weights_of(deployment.folder) == simulated_weights(tmp_path, rounds=3)


def test_a_client_killed_for_want_of_memory_costs_its_own_reply(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(devices=["honest", "slow"], round_timeout=100.0)
    deployment.start(hostile=True)
    deployment.wait_for((deployment.marks / "slow-1").exists)
    _, *copies = children(deployment.federation.supernodes["slow"], "feddac.deployment.warm")
    assert copies
    for client in copies:
        os.kill(client, signal.SIGKILL)
    assert deployment.finish().completed, deployment.log
    print("\n".join(deployment.log))
    deployment.require_whole(rounds=2)
    assert deployment.statuses("honest") == ["trained", "trained"]
    assert deployment.statuses("slow")[0] in ("late", "failed")
    assert deployment.statuses("slow")[1] == "trained"


def test_a_data_folder_that_vanishes_is_named_and_the_run_goes_on_once_it_is_back(workplace: Path) -> None:
    images = workplace / "images"
    write_shades(images, 40)
    flags = [*RUN, "--rounds", "4", "--devices", "2", "--data", str(images)]
    up = Up(workplace, *flags, "--out", "up")
    up.read_until("rounds: round 1: mean accuracy")
    images.rename(workplace / "gone")
    up.lines += list(up.process.stderr or [])
    assert up.process.wait(PATIENCE_SECONDS) == 1
    print("".join(up.lines))
    assert not any("Traceback" in line for line in up.lines)
    assert str(images) in up.lines[-1]
    (workplace / "gone").rename(images)
    again = feddac(["up", "--resume", "up"], workplace)
    assert again.returncode == 0, again.stderr
    whole = feddac(["simulate", "--engine", "inline", *flags, "--out", "whole"], workplace)
    assert whole.returncode == 0, whole.stderr
    assert weights_of(up.folder) == weights_of(workplace / "whole")
