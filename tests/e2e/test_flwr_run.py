"""`flwr run .` as the README shows it: the same run, and the same weights, as `feddac simulate`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import FLEET, ROOT, environment, feddac, weights_of

FLWR = shutil.which("flwr", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
SETTINGS = {
    "devices": 4,
    "model": "cnn",
    "width": 2.0,
    "rounds": 1,
    "warmup-epochs": 2,
    "epochs-per-step": 0,
    "fine-tune-epochs": 1,
}


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a Flower of its own; the SuperLink that `flwr run` leaves behind is stopped at the end."""
    http, control = free_ports(2)
    variables = environment(tmp_path) | {
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": http,
        "FLWR_LOCAL_CONTROL_API_PORT": control,
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    yield variables
    listing = subprocess.run(["ps", "-e", "-ww", "-o", "pid,args"], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        if f"127.0.0.1:{http}" in line or str(tmp_path) in line:
            with suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(FLWR is None, reason="Flower's command line is not installed")
def test_flwr_run_ends_with_the_weights_of_feddac_simulate(flower: dict[str, str], tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(FLEET)
    settings = {**SETTINGS, "fleet": f"'{fleet}'", "out": f"'{tmp_path / 'flwr-run'}'"}
    settings["model"] = f"'{settings['model']}'"
    done = subprocess.run(
        [
            *(str(FLWR), "run", ".", "--stream"),
            *("--federation-config", "num-supernodes=4 client-resources-num-cpus=1"),
            *("-c", " ".join(f"{key}={value}" for key, value in settings.items())),
        ],
        cwd=ROOT,
        env=flower,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    report = tmp_path / "flwr-run" / "report.html"
    assert report.exists(), done.stdout + done.stderr
    assert f"The report is {report}" in done.stdout + done.stderr
    flags = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
    one_thread = {"OMP_NUM_THREADS": "1"}
    simulated = feddac(
        ["simulate", "--engine", "inline", *flags, "--fleet", str(fleet), "--out", "run"], tmp_path, one_thread
    )
    assert simulated.returncode == 0, simulated.stderr
    assert len(weights_of(tmp_path / "run")) == 3
    assert weights_of(tmp_path / "flwr-run") == weights_of(tmp_path / "run")
