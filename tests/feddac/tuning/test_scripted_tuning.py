"""Which trials `feddac tune` makes and what becomes of them, with scripted runs whose scores are known."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.config import Config
from common.errors import CheckpointError
from feddac.cli.main import run
from feddac.comparison.plan import read_experiment
from feddac.tuning.plan import read_tuning
from server.run_folder import RunFolder
from server.run_lock import LOCK_NAME, RunLock
from tests.examples import slow
from tests.feddac.tuning.scripted import CHANCE, EXPERIMENT, SERVED, TIDY, append, quality, starter, tune_scripted
from tests.forked import Forked

Write = Callable[..., Path]


def trials_of(out: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (out / "trials.jsonl").read_text().splitlines():
        one = json.loads(line)
        found.setdefault(one["method"], []).append(one)
    return found


def tune(experiment: Path, out: Path, *more: str, trials: int = 6) -> int:
    return run(["tune", str(experiment), "--out", str(out), "--trials", str(trials), *more])


def over_all(accuracy: float) -> float:
    return (SERVED * accuracy + CHANCE) / (SERVED + 1)


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def patch(**behaviour: float) -> None:
        monkeypatch.setattr("feddac.comparison.processes.start_run", starter(**behaviour))

    return patch


def test_every_method_has_as_many_trials_and_its_own_settings_first(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    behave()
    assert tune(write_experiment(), tmp_path / "out") == 0
    shown = capsys.readouterr()
    assert "6 trials of each of 2 methods on seed 2" in shown.err
    assert "trials 12/12" in shown.err
    trials = trials_of(tmp_path / "out")
    assert [one["trial"] for one in trials["first"]] == [one["trial"] for one in trials["second"]] == list(range(6))
    assert trials["first"][0]["settings"] == {"learning-rate": 0.01}
    assert trials["second"][0]["settings"] == {"learning-rate": 0.02}
    plan = read_experiment(tmp_path / "out/tuned.toml")
    assert plan.seeds == (0, 1)
    for name, ones in trials.items():
        for one in ones:
            folder = RunFolder(tmp_path / f"out/runs/{name}/trial-{one['trial']}/all")
            config = Config.from_mapping(folder.read_config())
            assert config.run.seed == 2
            assert config.federation.learning_rate == one["settings"]["learning-rate"]
            assert 0.001 <= config.federation.learning_rate <= 1
            if one["state"] == "complete":
                # a device without a model guesses
                assert one["validation_accuracy"] == pytest.approx(over_all(quality(config, 3)))
        best = max(ones, key=lambda one: one["validation_accuracy"] or 0)
        assert plan.methods[name]["learning-rate"] == best["settings"]["learning-rate"]
        assert f"{100 * best['validation_accuracy']:.1f} %" in shown.out
    text = (tmp_path / "out/tuned.toml").read_text()
    for words in ("6 trials of each", "seed 2,", "feddac tune", "--trials 6 --seed 2", "0.001 to 1 (log)"):
        assert words in text


def test_the_choice_depends_on_the_seed_alone(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None]
) -> None:
    behave()
    experiment = write_experiment()
    for name, more in (("one", ["--jobs", "1"]), ("two", ["--jobs", "2"]), ("other", ["--seed", "7"])):
        assert tune(experiment, tmp_path / name, *more) == 0
    one, two, other = (trials_of(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one["first"][0]["settings"] == other["first"][0]["settings"]
    assert one["first"][1]["settings"] != other["first"][1]["settings"]
    # with more trials the first of them are the same
    assert tune(experiment, tmp_path / "more", trials=4) == 0
    assert tune(experiment, tmp_path / "more", trials=6) == 0
    assert trials_of(tmp_path / "more") == one


@pytest.mark.parametrize("number", [signal.SIGKILL, *slow(signal.SIGINT)])
def test_the_same_command_goes_on_after_its_end(number: int, write_experiment: Write, tmp_path: Path) -> None:
    experiment = write_experiment()
    arguments = [str(experiment), "--trials", "5", "--jobs", "2", "--out"]
    err = tmp_path / "err.txt"

    def start(name: str) -> Forked:
        work = partial(tune_scripted, [*arguments, str(tmp_path / name)], 0.2)
        return Forked(work, tmp_path, os.environ, tmp_path / "out.txt", err)

    assert start("whole").wait(120) == 0
    cut = start("cut")
    while not (tmp_path / "cut/runs/second/trial-2/all/metrics.jsonl").exists():
        assert cut.poll() is None
        time.sleep(0.02)
    os.kill(cut.pid, number)
    code = cut.wait(60)
    if number == signal.SIGINT:
        assert code == 130
        assert err.read_text().endswith("Interrupted; the same command goes on where this one stopped\n")
    until = time.monotonic() + 60
    while (tmp_path / "cut" / LOCK_NAME).exists():  # what was forked off holds it until it ends
        assert time.monotonic() < until
        with suppress(CheckpointError):
            RunLock(tmp_path / "cut").release()
        time.sleep(0.1)
    done = sorted((tmp_path / "cut").rglob("summary.json"))
    before = {path: path.stat().st_mtime_ns for path in done}
    assert len(done) >= 3
    assert start("cut").wait(120) == 0
    assert trials_of(tmp_path / "cut") == trials_of(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in done} == before


def test_a_trial_that_falls_behind_is_ended_and_one_that_fails_counts(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    behave(lag=5, fail=2)
    begun = time.monotonic()
    assert tune(write_experiment(), tmp_path / "out") == 0
    assert time.monotonic() - begun < 50  # the runs that fall behind would take a minute
    for name, ones in trials_of(tmp_path / "out").items():
        assert ones[2]["state"] == "failed"
        assert ones[2]["reason"] == "the training diverged"
        assert ones[5]["state"] == "pruned"
        assert ones[5]["after"][0]["step"] == 1
        assert ones[5]["validation_accuracy"] is None
        assert {one["state"] for one in ones[:2]} == {"complete"}
        assert (tmp_path / f"out/runs/{name}/trial-5/all" / TIDY).exists()
    assert "pruned" in capsys.readouterr().out
    text = (tmp_path / "out/tuned.toml").read_text()
    assert "1 failed" in text


def test_no_trial_is_judged_before_three_are_complete(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None]
) -> None:
    behave()
    assert tune(write_experiment(), tmp_path / "out", trials=3) == 0
    assert {one["state"] for ones in trials_of(tmp_path / "out").values() for one in ones} == {"complete"}


def test_a_trial_of_a_grid_is_the_mean_over_its_cells(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None]
) -> None:
    behave()
    grid = '[grid]\npartition = ["iid", "classes:2"]\n'
    assert tune(write_experiment(EXPERIMENT + grid), tmp_path / "out", trials=2) == 0
    for one in trials_of(tmp_path / "out")["first"]:
        folders = [
            RunFolder(tmp_path / f"out/runs/first/trial-{one['trial']}/partition-{name}")
            for name in ("iid", "classes-2")
        ]
        configs = [Config.from_mapping(folder.read_config()) for folder in folders]
        scores = [over_all(quality(config, 3)) for config in configs]
        assert scores[0] != scores[1]
        assert one["validation_accuracy"] == pytest.approx(sum(scores) / 2)
        assert [after["step"] for after in one["after"]] == [1, 2, 3, 4, 5]
        assert one["after"][3]["validation_accuracy"] == pytest.approx(
            (scores[0] + over_all(quality(configs[1], 1))) / 2
        )
    assert len(read_experiment(tmp_path / "out/tuned.toml").cells) == 2


def test_a_method_without_a_complete_trial_is_named_and_tried_anew_by_the_same_command(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    behave(fail=0)
    experiment = write_experiment()
    assert tune(experiment, tmp_path / "out", trials=1) == 1
    errors = capsys.readouterr().err
    assert "Failed: first: no trial came to its end, so there is no tuned.toml; first: the training diverged" in errors
    assert not (tmp_path / "out/tuned.toml").exists()
    behave()
    assert tune(experiment, tmp_path / "out", trials=1) == 0
    assert (tmp_path / "out/tuned.toml").exists()


def test_trials_of_something_else_are_not_mixed_in(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    behave()
    experiment, out = write_experiment(), tmp_path / "out"
    assert tune(experiment, out, trials=2) == 0
    for more, trials, message in (
        (["--rounds", "5"], 2, "made with rounds in all = 3, not 5"),
        (["--seed", "9"], 2, "made with seed in all = 2, not 9"),
        ([], 1, "give --trials 2 or more"),
    ):
        capsys.readouterr()
        assert tune(experiment, out, *more, trials=trials) == 2
        errors = capsys.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
    experiment.write_text(EXPERIMENT.replace("high = 1.0", "high = 0.5"))
    assert tune(experiment, out, trials=2) == 2
    assert "with the range of learning-rate = '0.001 to 1 (log)', not '0.001 to 0.5 (log)'" in capsys.readouterr().err


def test_the_fleet_of_trials_is_what_its_file_says_wherever_that_lies(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    behave()
    for name in ("fleet", "same"):
        (tmp_path / f"{name}.toml").write_text('[[device]]\ncount = 4\nparams = "40k"\n')
    text, out = EXPERIMENT.replace('"phone"', '"fleet.toml"'), tmp_path / "out"
    assert tune(write_experiment(text), out, trials=1) == 0
    assert tune(write_experiment(text.replace("fleet.toml", "same.toml")), out, trials=2) == 0
    assert {len(ones) for ones in trials_of(out).values()} == {2}
    (tmp_path / "fleet.toml").write_text('[[device]]\ncount = 4\nparams = "50k"\n')
    capsys.readouterr()
    assert tune(write_experiment(text), out, trials=2) == 2
    assert "made with fleet in all = 'a file with the SHA-256 " in capsys.readouterr().err


def test_trials_belong_to_the_content_of_the_files_that_they_read(write_experiment: Write, tmp_path: Path) -> None:
    experiment = write_experiment(EXPERIMENT.replace('model = "mlp"', 'model = "mlp"\ndata = "images.parquet"'))
    file = tmp_path / "images.parquet"

    def identity() -> dict[str, Any]:
        return read_tuning(experiment).methods[0].identity()

    file.write_bytes(b"images")
    before = identity()
    os.utime(file, (0, 0))
    assert identity() == before
    file.write_bytes(b"others")
    assert {key for key, value in identity().items() if value != before[key]} == {"data in all"}


def test_a_tuning_that_goes_on_takes_over_searches_that_are_done(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None]
) -> None:
    behave()
    experiment, out = write_experiment(), tmp_path / "out"
    assert tune(experiment, out, trials=1) == 0
    done = RunFolder(out / "runs/first/trial-0/all")
    for name, content in (("search.safetensors", b"found"), ("latest", b"1")):
        (done.checkpoint_folder / name).write_bytes(content)
    append(done, "search", epoch=1)
    assert tune(experiment, out, trials=2) == 0
    for method in ("first", "second"):  # whose searches are the same
        folder = RunFolder(out / f"runs/{method}/trial-1/all")
        assert (folder.checkpoint_folder / "search.safetensors").read_bytes() == b"found"
        assert [event["epoch"] for event in folder.events("search")] == [1]


def test_own_settings_outside_the_range_are_tried_too_and_can_be_chosen(
    write_experiment: Write, tmp_path: Path, behave: Callable[..., None]
) -> None:
    behave()
    text = EXPERIMENT.replace("{low = 0.001, high = 1.0, log = true}", "[0.3, 0.9]").replace("0.02", "0.1")
    assert tune(write_experiment(text), tmp_path / "out", trials=4) == 0
    trials = trials_of(tmp_path / "out")
    assert trials["second"][0]["settings"] == {"learning-rate": 0.1}
    assert all(one["settings"]["learning-rate"] in (0.3, 0.9) for one in trials["second"][1:])
    plan = read_experiment(tmp_path / "out/tuned.toml")
    assert plan.methods["second"] == {"learning-rate": 0.1}
    assert plan.methods["first"] == {"learning-rate": 0.3}


@pytest.mark.parametrize(("name", "code"), [("a {b} #c %d", 0), ("what?", 2)])
def test_the_folder_may_have_any_name_that_a_database_can(
    name: str, code: int, write_experiment: Write, tmp_path: Path, behave: Callable[..., None]
) -> None:
    behave()
    assert tune(write_experiment(), tmp_path / name, trials=1) == code
    assert (tmp_path / name / "study.db").exists() == (code == 0)


def test_a_damaged_file_of_trials_is_one_line(
    write_experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/study.db").write_bytes(b"no database" * 100)
    assert tune(write_experiment(), tmp_path / "out") == 1
    errors = capsys.readouterr().err
    assert "study.db is damaged" in errors
    assert errors.count("\n") == 1
