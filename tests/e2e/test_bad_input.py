"""A user's mistake gives one clear line and a non-zero exit, and never a traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from feddac.cli.main import run
from tests.e2e.conftest import Finished, feddac
from tests.feddac.cli.errors import assert_one_clear_line

MISTAKES = [
    (["--data", "fashion-mist"], "fashion-mnist"),
    (["--data", "/nowhere/at/all"], "/nowhere/at/all"),
    (["--max-params", "1000"], "smallest mobilenet_v2"),
    (["--max-macs", "-5"], "max-macs"),
    (["--max-macs", "0"], "max-macs"),
    (["--max-memory", "lots"], "max-memory"),
    (["--devices", "5000"], "5000"),
    (["--devices", "0"], "devices"),
    (["--devices", "many"], "devices"),
    (["--rounds", "-1"], "rounds"),
    (["--partition", "dirichlet:-1"], "partition"),
    (["--partition", "classes:0"], "partition"),
    (["--partition", "classes:99"], "99"),
    (["--local-epochs", "5-3"], "local-epochs"),
    (["--fleet", "toaster"], "toaster"),
    (["--learning-rate", "nan"], "learning-rate"),
    (["--engine", "steam"], "steam"),
    (["--config", "missing.toml"], "missing.toml"),
    (["--resume", "missing"], "missing"),
    (["--no-such-flag"], "no-such-flag"),
    (["--method", "fedporx"], "did you mean 'fedprox'"),
    (["--method", "heterofl", "--architectures", "nowhere"], "method heterofl does not read architectures"),
    (["--method", "fedavg", "--joint-epochs", "2"], "method fedavg does not read joint-epochs"),
    (["--aggregation", "overlaps"], "aggregation"),
    (["--architectures", "nowhere"], "nowhere"),
]


@pytest.mark.parametrize(("flags", "part"), MISTAKES, ids=[" ".join(flags) for flags, _ in MISTAKES])
def test_mistakes_are_named_in_one_line(
    flags: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["simulate", "--engine", "inline", *flags]) in (1, 2)
    assert_one_clear_line(capfd.readouterr().err, part)
    assert not (tmp_path / "runs").exists()


def test_a_mistake_ends_the_process_with_a_failure(tmp_path: Path) -> None:
    done = feddac(["simulate", "--devices", "0"], tmp_path)
    assert done.returncode == 2
    assert_one_clear_line(done.stderr, "devices")
    assert done.stdout == ""


def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = feddac(["simulate", "--out", "file/run"], tmp_path)
    assert done.returncode == 2
    assert_one_clear_line(done.stderr, "file/run")


def test_a_run_folder_that_holds_a_run_is_not_overwritten(
    finished_run: Finished, small_run: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(finished_run.folder, tmp_path / "run")
    assert run(["simulate", *small_run, "--out", str(copy)]) == 2
    assert_one_clear_line(capfd.readouterr().err, "--resume")
    assert (copy / "metrics.jsonl").read_bytes() == (finished_run.folder / "metrics.jsonl").read_bytes()


def _other_configuration(run: Path) -> list[str]:
    return ["--resume", str(run), "--learning-rate", "0.5"]


def _damaged_weights(run: Path) -> list[str]:
    weights = sorted((run / "checkpoint").glob("round-*/cohort-*.safetensors"))[-1]
    content = bytearray(weights.read_bytes())
    content[-20] ^= 255
    weights.write_bytes(content)
    return ["--resume", str(run)]


def _truncated_weights(run: Path) -> list[str]:
    weights = sorted((run / "checkpoint").glob("round-*/cohort-*.safetensors"))[-1]
    weights.write_bytes(weights.read_bytes()[:100])
    return ["--resume", str(run)]


def _damaged_config(run: Path) -> list[str]:
    (run / "config.toml").write_text("rounds = = 3")
    return ["--resume", str(run)]


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (_other_configuration, "learning-rate"),
        (_damaged_weights, "damaged"),
        (_truncated_weights, "damaged"),
        (_damaged_config, "config.toml"),
    ],
)
def test_what_cannot_be_resumed_is_refused(
    damage: Callable[[Path], list[str]],
    part: str,
    finished_run: Finished,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    copy = shutil.copytree(finished_run.folder, tmp_path / "run")
    assert run(["simulate", "--engine", "inline", *damage(copy)]) in (1, 2)
    assert_one_clear_line(capfd.readouterr().err, part)


def test_no_network_where_a_download_is_needed(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"
    variables = {"HTTP_PROXY": nobody, "HTTPS_PROXY": nobody, "http_proxy": nobody, "https_proxy": nobody}
    done = feddac(["simulate", "--data", "cifar10", "--engine", "inline", "--out", "run"], tmp_path, variables)
    assert done.returncode == 1
    assert_one_clear_line(done.stderr, "cifar10")
