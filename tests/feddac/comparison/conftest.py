"""An experiment of seconds: the smallest network on digits, devices that search briefly."""

from collections.abc import Callable
from pathlib import Path

import pytest

from feddac.comparison.plan import Experiment, read_experiment
from tests.forked import start_run

SETTINGS = """
[settings]
model = "mlp"
devices = 3
rounds = 2
fleet = "phone"
max-params = "15k"
warmup-epochs = 1
epochs-per-step = 0
fine-tune-epochs = 1
accelerator = "cpu"
train-images = 300
"""

METHODS = """
[methods.plain]
[methods.scratch]
initial-weights = "random"
"""


@pytest.fixture(autouse=True)
def _forked_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feddac.comparison.processes.start_run", start_run)


@pytest.fixture
def write_experiment(tmp_path: Path) -> Callable[..., Path]:
    def write(top: str = "seeds = [0, 1]", settings: str = SETTINGS, rest: str = METHODS) -> Path:
        path = tmp_path / "experiment.toml"
        path.write_text(f"{top}\n{settings}\n{rest}", encoding="utf-8")
        return path

    return write


@pytest.fixture
def small_experiment(write_experiment: Callable[..., Path]) -> Callable[..., Experiment]:
    def make(**parts: str) -> Experiment:
        return read_experiment(write_experiment(**parts))

    return make
