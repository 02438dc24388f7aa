"""Runs of the real command line in processes of their own, small enough to take seconds."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.forked import feddac_forked

ROOT = Path(__file__).resolve().parent.parent.parent
FEDDAC = [sys.executable, "-c", "from feddac.cli.main import main; main()"]

FLEET = """
[[device]]
name = "small"
count = 2
macs = "60k"

[[device]]
name = "middle"
params = "30k"

[[device]]
name = "large"
"""

SMALL_RUN = [
    *("--model", "cnn", "--width", "2", "--rounds", "2"),
    *("--warmup-epochs", "2", "--epochs-per-step", "1", "--fine-tune-epochs", "1"),
]


@dataclass(frozen=True)
class Finished:
    """A run folder and what the command that made it printed."""

    folder: Path
    process: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of a run with three kinds of devices that takes a second or two of work."""
    fleet = tmp_path_factory.mktemp("fleet") / "fleet.toml"
    fleet.write_text(FLEET)
    return [*SMALL_RUN, "--fleet", str(fleet), "--engine", "inline"]


@pytest.fixture(scope="session")
def finished_run(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One small run, made once; copy its folder before changing anything in it."""
    home = tmp_path_factory.mktemp("finished")
    process = feddac(["simulate", *small_run, "--out", "run"], home)
    assert process.returncode == 0, process.stderr
    return Finished(home / "run", process)


def environment(home: Path) -> dict[str, str]:
    """An environment in which `feddac` finds this checkout's code and writes nowhere but in `home`."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(home / "cache"),
        "FLWR_HOME": str(home / "flwr"),
        "COLUMNS": "200",
    }


def feddac(
    arguments: Sequence[str], home: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `feddac` with `arguments` in the folder `home`, with more environment `variables`."""
    return feddac_forked(arguments, home, {**environment(home), **(variables or {})}, timeout=240)


def weights_of(run_folder: Path) -> dict[str, bytes]:
    """The bytes of every model of a run, by cohort."""
    return {path.stem: path.read_bytes() for path in sorted((run_folder / "models").glob("*.safetensors"))}
