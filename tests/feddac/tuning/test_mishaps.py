"""What the machine ends is no trial: it is done again by the same command, with the same outcome as if never ended."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from feddac.comparison.processes import OUTPUT
from feddac.tuning.mishaps import mishap_of
from server.run_folder import RunFolder
from tests.feddac.tuning.scripted import tune_on_small_disk
from tests.feddac.tuning.test_scripted_tuning import Write, behave, trials_of, tune
from tests.forked import done_forked

__all__ = ["behave"]


@pytest.mark.parametrize(
    ("mishap", "reason"),
    [("killed", "its process was ended by signal 9 (Killed), as when memory runs out"), ("full", "No space left")],
)
def test_a_trial_that_the_machine_ended_is_done_again(
    mishap: str,
    reason: str,
    write_experiment: Write,
    tmp_path: Path,
    behave: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment, out = write_experiment(), tmp_path / "out"
    behave(**{mishap: 1})
    assert tune(experiment, out, trials=3) == 1
    lines = capsys.readouterr().err.splitlines()[-2:]
    for name, line in zip(("first", "second"), sorted(lines), strict=True):
        assert line.startswith(f"Not done: {name}, trial 1: ")
        assert reason in line
        assert line.endswith("; the same command does it again")
        assert "resume with" not in line
    assert [one["state"] for one in trials_of(out)["first"]] == ["complete", "running"]
    assert not (out / "tuned.toml").exists()
    behave()
    assert tune(experiment, out, trials=3) == 0
    assert tune(experiment, tmp_path / "undisturbed", trials=3) == 0
    assert trials_of(out) == trials_of(tmp_path / "undisturbed")


def test_a_trial_in_whose_folder_another_process_writes_is_left_alone(
    write_experiment: Write,
    tmp_path: Path,
    behave: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment, out = write_experiment(), tmp_path / "out"
    behave(killed=0)
    assert tune(experiment, out, trials=1) == 1
    behave()
    monkeypatch.setattr("feddac.tuning.execute.RELEASE_SECONDS", 0.0)
    capsys.readouterr()
    with RunFolder(out / "runs/first/trial-0/all") as living:
        (living.path / OUTPUT).write_text("what it has printed")
        assert tune(experiment, out, trials=1) == 1
        assert (living.path / OUTPUT).read_text() == "what it has printed"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Not done: first, trial 0: ")
    assert "trial-0/all is in use by " in last
    assert tune(experiment, out, trials=1) == 0


@pytest.mark.parametrize("begun", [False, True])
def test_a_disk_that_is_too_small_for_the_trials_is_one_line(
    begun: bool, write_experiment: Write, tmp_path: Path, behave: Callable[..., None]
) -> None:
    experiment, out = write_experiment(), tmp_path / "out"
    if begun:
        behave()
        assert tune(experiment, out, trials=1) == 0
    arguments = [str(experiment), "--quiet", "--trials", "2", "--out", str(out)]
    done = done_forked(partial(tune_on_small_disk, arguments, 20_000), tmp_path, os.environ, 120)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot write in {out}: ")
    assert done.stderr.endswith("; once that is mended, the same command goes on\n")
    assert done.stderr.count("\n") == 1
    behave()
    assert tune(experiment, out, trials=2) == 0


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (-15, "Error: the training diverged", "its process was ended by signal 15 (Terminated)"),
        (130, "Interrupted; resume with: feddac simulate --resume runs/a", "its process was interrupted"),
        (1, "rounds 2/3", "its process ended with exit code 1 and could not say why"),
        (
            1,
            "Error: cannot write in runs/a: full; once that is mended, resume",
            "cannot write in runs/a: full",
        ),
        (1, "Error: runs/a is in use by process 7: wait", "runs/a is in use by process 7: wait"),
        (1, "Error: Ray stopped (gone); inline runs without it", "Ray stopped (gone); inline runs without it"),
        (1, "Error: no reply was admitted in 3 rounds in a row; the training diverged", ""),
        (1, "Error: no architecture fits; this works: feddac simulate --width 0.5", ""),
        (2, "Error: the method needs more", ""),
    ],
)
def test_only_what_may_depend_on_the_settings_is_a_failure(code: int, said: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / OUTPUT).write_text(f"started\n{said}\n")
    assert mishap_of(tmp_path / OUTPUT, code) == reason
