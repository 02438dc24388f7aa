"""`feddac tune` end to end, on digits: two methods of three trials each, and what the test set has to do with it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.config import Config
from feddac.cli.main import run
from feddac.comparison.plan import read_experiment
from server.run_folder import RunFolder
from tests.feddac.tuning.conftest import SMALL

Write = Callable[..., Path]


def test_the_test_set_decides_nothing_and_validation_images_do(
    write_experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, out = write_experiment(SMALL), tmp_path / "out"
    command = ["tune", str(experiment), "--out", str(out), "--trials", "3"]
    assert run(command) == 0
    shown = capsys.readouterr()
    for text in ("plain", "fedprox", "proximal-coefficient", "tuned.toml", "trials.jsonl"):
        assert text in shown.out
    assert "3 trials of each of 2 methods on seed 2" in shown.err

    trials = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert [(one["method"], one["trial"], one["state"]) for one in trials] == [
        (method, number, "complete") for method in ("plain", "fedprox") for number in range(3)
    ]
    summaries = sorted(out.rglob("summary.json"))
    assert len(summaries) == 6
    # the searches of the method that searches were done once
    assert len({(path.parent / "checkpoint/search.safetensors").exists() for path in summaries}) == 2
    chosen = {name: dict(settings) for name, settings in read_experiment(out / "tuned.toml").methods.items()}
    for name in ("plain", "fedprox"):
        ones = [one for one in trials if one["method"] == name]
        best = max(ones, key=lambda one: one["validation_accuracy"])
        assert best["settings"].items() <= chosen[name].items()
    files = {name: (out / name).read_bytes() for name in ("tuned.toml", "trials.jsonl")}

    def judged_anew() -> dict[str, bytes]:
        (out / "study.db").unlink()
        assert run(command) == 0
        assert sorted(out.rglob("summary.json")) == summaries
        return {name: (out / name).read_bytes() for name in files}

    # Every figure of the test set is turned round: the same is chosen, of the same trials.
    change(summaries, "test_accuracy", lambda value: 1 - value)
    change(summaries, "loss", lambda value: -value)
    assert judged_anew() == files
    # The accuracies on validation images are: another is chosen.
    change(summaries, "validation_accuracy", lambda value: 1 - value)
    assert judged_anew() != files


def change(summaries: list[Path], figure: str, changed: Callable[[float], float]) -> None:
    """Replace a figure wherever it stands in the events and the summaries."""

    def replaced(value: object) -> object:
        if isinstance(value, dict):
            return {
                key: changed(one) if key == figure and isinstance(one, float) else replaced(one)
                for key, one in value.items()
            }
        return [replaced(one) for one in value] if isinstance(value, list) else value

    for path in summaries:
        path.write_text(json.dumps(replaced(json.loads(path.read_text()))))
        events = RunFolder(path.parent).events()
        text = "".join(f"{json.dumps(replaced(one))}\n" for one in events)
        (path.parent / "metrics.jsonl").write_text(text)


def test_the_result_is_compared_as_it_is(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From another folder too, though the experiment names a file beside it and the command one of its own."""
    (tmp_path / "fleet.toml").write_text('[[device]]\ncount = 2\nparams = "15k"\n')
    text = SMALL.replace('fleet = "phone"', 'fleet = "fleet.toml"').replace('max-params = "15k"\n', "")
    text = text.replace("devices = 3\n", "").partition("[methods.fedprox]")[0]
    write_experiment('title = "Small"\ntarget = 0.1\n' + text + '[tune]\nlocal-epochs = ["1", "2"]\n')
    monkeypatch.chdir(tmp_path)
    assert run(["tune", "experiment.toml", "--out", "out", "--trials", "2", "--rounds", "1"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    plan = read_experiment(tmp_path / "out/tuned.toml")
    assert (plan.title, plan.target, plan.seeds) == ("Small", 0.1, (0, 1))
    config = plan.runs[0].config
    assert config.fleet.fleet == str(tmp_path / "fleet.toml")
    assert (config.fleet.devices, config.federation.rounds) == (2, 1)
    tried = RunFolder(tmp_path / "out/runs/plain/trial-0/all").read_config()
    own = {key: config.to_mapping()[key] for key in ("fleet", "local-epochs")}
    changed = {"seed": 0, "out": "", **own}
    assert config == Config.from_mapping({**tried, **changed})
    command = "feddac tune experiment.toml --trials 2 --seed 2 --out out --rounds 1"
    assert command in (tmp_path / "out/tuned.toml").read_text()
    capsys.readouterr()
    assert run(["compare", str(tmp_path / "out/tuned.toml"), "--out", str(tmp_path / "compared"), "--seeds", "0"]) == 0
    assert "plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--engine", "cluster"], 2, "--engine must be one of ray, inline, batched, not 'cluster'"),
        (["--trials", "0"], 2, "--trials"),
        (["--seed", "1"], 2, "--seed 1 is one of the experiment's seeds"),
        (["--rounds", "-1"], 2, "rounds must be at least 0"),
        (["--data", "nowhere.parquet"], 1, "method plain: "),
        (["--max-params", "10"], 1, "method plain: "),
    ],
)
def test_wrong_flags_are_one_line_before_any_work(
    more: list[str],
    code: int,
    message: str,
    write_experiment: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["tune", str(write_experiment(SMALL)), "--out", str(tmp_path / "out"), *more]) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_extra_is_named(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run(["tune", str(write_experiment(SMALL)), "--out", str(tmp_path / "out")]) == 2
    assert "tune needs the package optuna; install it with: pip install 'feddac[tune]'" in capsys.readouterr().err


def test_only_a_tuning_imports_optuna(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from feddac.cli.main import run; import feddac.tuning.tune, feddac.tuning.write; "
        "run(['compare', '--help']); assert 'optuna' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tune", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "feddac compare runs/tuned/tuned.toml --out runs/compared" in shown
    assert "[tune.methods.fedprox]" in shown
