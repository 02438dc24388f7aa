"""`feddac up`: the processes start, the run ends as a simulation does, and nothing is left behind."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import FEDDAC, environment, feddac, weights_of

RUN = [
    *("--model", "mlp", "--rounds", "1", "--fleet", "phone,workstation", "--max-params", "15k"),
    *("--warmup-epochs", "1", "--epochs-per-step", "0", "--fine-tune-epochs", "1", "--accelerator", "cpu"),
]
FLEET = """
[[device]]
name = "tiny"
params = "8k"

[[device]]
name = "small"
count = 2
macs = "20k"

[[device]]
name = "large"
"""


def processes_below(folder: Path) -> list[str]:
    """Command lines of running processes that name `folder`, or were started in it."""
    listing = subprocess.run(["ps", "-e", "-ww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    found = [line for line in listing.splitlines() if str(folder) in line]
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(link.readlink()).startswith(str(folder)):
                found.append(link.parent.name)
        except OSError:  # gone meanwhile, or a zombie
            continue
    return found


@pytest.mark.slow  # two minutes: every message of a device starts a process
def test_four_devices_over_tls_end_with_the_weights_of_a_simulation(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    flags = [*RUN, "--fleet", "fleet.toml"]
    done = feddac(["up", *flags, "--tls", "--out", "up"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for name in ("tiny", "small-00", "small-01", "large"):
        assert f"connected: {name} (" in done.stderr
    assert "rounds: round 1: mean accuracy" in done.stderr
    assert "cohort-0" in done.stdout
    assert "Report:     up/report.html" in done.stdout
    assert (tmp_path / "up" / "report.html").stat().st_size > 0
    assert [path.name for path in (tmp_path / "up" / "deployment").iterdir()] == ["logs"]
    assert processes_below(tmp_path / "up") == []
    assert not (tmp_path / "flwr").exists()
    simulated = feddac(["simulate", *flags, "--engine", "inline", "--out", "simulated"], tmp_path)
    assert simulated.returncode == 0, simulated.stderr
    assert weights_of(tmp_path / "up") == weights_of(tmp_path / "simulated")


def test_ctrl_c_stops_every_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*FEDDAC, "up", *RUN, "--devices", "1", "--out", "up"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("connected: device-00"):
                assert processes_below(tmp_path / "up") != []
                process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, lines
    assert lines[-1] == "Interrupted; resume with: feddac up --resume up\n"
    time.sleep(0.1)
    assert processes_below(tmp_path / "up") == []


@pytest.mark.slow  # starts all processes once more
def test_a_run_that_fails_is_a_failure_and_says_how_to_go_on(tmp_path: Path) -> None:
    done = feddac(["up", *RUN, "--devices", "1", "--handshake-timeout", "1", "--out", "up"], tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: the run failed: no device reported within 1 s: ")
    assert "feddac up --resume up" in last
    assert processes_below(tmp_path / "up") == []
