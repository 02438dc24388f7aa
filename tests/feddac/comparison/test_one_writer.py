"""Two commands on one folder: the second is refused, and nothing that a living run writes is touched."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import feddac
from common.errors import CheckpointError
from common.progress import Silent
from feddac.cli.main import run
from feddac.comparison.execute import execute
from feddac.comparison.folders import prepare_folders
from feddac.comparison.plan import Experiment
from feddac.comparison.processes import OUTPUT
from server.run_folder import RunFolder
from server.run_lock import LOCK_NAME, RunLock

ONE = '[methods.only]\nmethod = "fedavg"\npretraining-epochs = 0\n'
FEDAVG = '[settings]\nmodel = "mlp"\ndevices = 2\nrounds = 1\nfleet = "phone"\naccelerator = "cpu"\ntrain-images = 300'


def test_a_second_comparison_of_a_folder_is_refused(
    write_experiment: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, out = write_experiment(top="", settings=FEDAVG, rest=ONE), tmp_path / "out"
    out.mkdir()
    first = RunLock(out)
    assert run(["compare", str(experiment), "--out", str(out)]) == 1
    errors = capsys.readouterr().err
    assert f"Error: {out} is in use by process " in errors
    assert errors.count("\n") == 1
    with pytest.raises(CheckpointError, match="is in use by process"):
        feddac.compare(experiment, out=out)
    assert [path.name for path in out.iterdir()] == [LOCK_NAME]
    first.release()


def test_the_folder_is_free_again_when_the_comparison_is_over(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    experiment = write_experiment(top="", settings=FEDAVG, rest=ONE)
    for _ in range(2):
        assert not feddac.compare(experiment, out=tmp_path / "out").failures
        assert not (tmp_path / "out" / LOCK_NAME).exists()


def test_a_run_of_a_command_that_was_killed_is_waited_for(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    plan, out = small_experiment(top="", settings=FEDAVG, rest=ONE), tmp_path / "out"
    prepare_folders(plan.runs, out)
    living = RunFolder(out / plan.runs[0].folder).__enter__()
    threading.Timer(1.0, living.close).start()
    assert not feddac.compare(tmp_path / "experiment.toml", out=out).failures


def test_a_run_that_another_process_goes_on_with_is_left_alone(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    plan, out = small_experiment(top="", settings=FEDAVG, rest=ONE), tmp_path / "out"
    prepare_folders(plan.runs, out)
    with RunFolder(out / plan.runs[0].folder) as living:
        (living.path / OUTPUT).write_text("what it has printed")
        before = {path: path.read_bytes() for path in living.path.rglob("*") if path.is_file()}
        [failure] = execute(plan.runs, out, 1, "inline", Silent())
        assert "only/seed-0 is in use by process" in failure.reason
        changed = small_experiment(top="", settings=FEDAVG, rest=ONE + "learning-rate = 0.5")
        with pytest.raises(CheckpointError, match="only/seed-0 is in use by process"):
            prepare_folders(changed.runs, out)
        assert {path: path.read_bytes() for path in living.path.rglob("*") if path.is_file()} == before
