"""`feddac up` killed without a chance to clean up, and two of them in one folder."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feddac.deployment import leftovers
from tests.e2e.conftest import FEDDAC, environment, feddac, weights_of
from tests.feddac.deployment.test_up import RUN, processes_below

pytestmark = pytest.mark.timeout(600)

LONG = [*RUN, "--rounds", "3", "--devices", "2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The weights of the same run without processes and without harm."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = feddac(["simulate", *LONG, "--engine", "inline", "--out", "simulated"], folder)
    assert done.returncode == 0, done.stderr
    return weights_of(folder / "simulated")


class Up:
    """A running `feddac up` whose output is read line by line."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder / "up"
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*FEDDAC, "up", *arguments],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def read_until(self, part: str) -> None:
        """Read lines until one holds `part`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if part in line:
                return
        raise AssertionError(self.lines)

    def processor_seconds(self) -> float:
        """What it and the processes of its federation have computed so far."""
        total = 0
        for process in (self.process.pid, *leftovers.find(self.folder / "deployment")):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(ticks) for ticks in fields[11:15])  # its own and its ended children's, user and system
        return total / os.sysconf("SC_CLK_TCK")

    def kill(self, keeper: bool) -> None:
        """SIGKILL, for the keeper too if asked: then nobody ends what it has started."""
        children = subprocess.run(
            ["ps", "--ppid", str(self.process.pid), "-ww", "-o", "pid=,args="],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if keeper:
            [line] = [line for line in children.splitlines() if "keeper" in line]
            subprocess.run(["kill", "-KILL", line.split()[0]], check=True)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    leftovers.end(tmp_path / "up" / "deployment", 5)


@pytest.mark.slow
def test_after_kill_9_the_keeper_leaves_nothing_running(workplace: Path) -> None:
    up = Up(workplace, *LONG, "--out", "up")
    up.read_until("connected: device-01")
    assert len(leftovers.find(up.folder / "deployment")) >= 4
    up.kill(keeper=False)
    deadline = time.monotonic() + 20
    while processes_below(up.folder):
        assert time.monotonic() < deadline, processes_below(up.folder)
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("tls", [[], ["--tls"]], ids=["plain", "tls"])
@pytest.mark.parametrize("keeper", [False, True], ids=["keeper lives", "keeper killed too"])
def test_after_kill_9_resuming_ends_what_is_left_and_finishes_the_run(
    workplace: Path, tls: list[str], keeper: bool, undisturbed: dict[str, bytes]
) -> None:
    up = Up(workplace, *LONG, *tls, "--out", "up")
    up.read_until("rounds: round 1: mean accuracy")
    up.kill(keeper)
    left = leftovers.find(up.folder / "deployment")
    start = time.monotonic()
    again = Up(workplace, "--resume", "up", *tls)
    again.read_until("connected: device-01")
    assert time.monotonic() - start < 60
    assert again.processor_seconds() < 30  # of two processors, so that it is back in less, whatever else they do
    if keeper:
        assert any("that an earlier feddac up had left running" in line for line in again.lines)
    assert not left & leftovers.find(up.folder / "deployment")
    again.read_until("rounds: round 3: mean accuracy")
    assert again.process.wait(60) == 0
    assert processes_below(up.folder) == []
    assert weights_of(up.folder) == undisturbed


@pytest.mark.slow
def test_a_second_one_in_the_folder_of_a_living_one_is_refused_and_disturbs_nothing(workplace: Path) -> None:
    up = Up(workplace, *RUN, "--rounds", "1000", "--devices", "2", "--out", "up")
    up.read_until("rounds: round 1: mean accuracy")
    for command in (["up", "--resume", "up"], ["simulate", "--resume", "up", "--engine", "inline"]):
        refused = feddac(command, workplace)
        assert refused.returncode == 1
        [line] = refused.stderr.splitlines()
        assert "is in use by process" in line
    assert list((up.folder / "deployment").glob("state.db"))
    rounds = (up.folder / "metrics.jsonl").read_text().count('"event": "round"')
    up.read_until(f"rounds: round {rounds + 1}: mean accuracy")
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 130
