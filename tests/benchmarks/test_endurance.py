"""The endurance benchmark: a fleet of which most misbehave, small, and what `hostile` says of it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_every_kind_of_misbehaviour_is_found_and_the_honest_train() -> None:
    command = [sys.executable, "benchmarks/endurance.py", "hostile", "--devices", "12", "--each", "2"]
    fleet = ["--data", "digits", "--timeout", "15"]
    done = subprocess.run([*command, *fleet], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first_rounds = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in done.stdout.splitlines()[2:7]}
    assert first_rounds == {
        "2 raising": "2 failed",
        "2 nan": "2 rejected",
        "2 lying": "2 rejected",
        "2 slow": "2 late",
        "4 honest": "4 trained",
    }
