"""Experiment files to tune, and their runs in forked processes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.feddac.comparison.conftest import SETTINGS
from tests.feddac.tuning.scripted import EXPERIMENT
from tests.forked import start_run

SMALL = f"""
seeds = [0, 1]
{SETTINGS}
[methods.plain]
[methods.fedprox]
method = "fedprox"
pretraining-epochs = 1
[tune]
learning-rate = {{low = 0.003, high = 0.3, log = true}}
[tune.methods.fedprox]
proximal-coefficient = [0.001, 0.01, 0.1]
"""
"""Real runs of seconds."""


@pytest.fixture(autouse=True)
def _forked_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr("feddac.comparison.processes.start_run", start_run)


@pytest.fixture
def write_experiment(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str = EXPERIMENT) -> Path:
        path = tmp_path / "experiment.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
