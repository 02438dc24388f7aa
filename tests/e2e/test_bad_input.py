"""A user's mistake gives one clear line and a non-zero exit, and never a traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import feddac

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
]


def assert_one_clear_line(stderr: str, part: str) -> None:
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert "Traceback" not in stderr
    errors = [line for line in lines if line.startswith("Error: ")]
    assert len(errors) == 1, stderr
    assert part.lower() in errors[0].lower()
    assert lines[-1] == errors[0]


@pytest.mark.parametrize(("flags", "part"), MISTAKES, ids=[" ".join(flags) for flags, _ in MISTAKES])
def test_mistakes_are_named_in_one_line(flags: list[str], part: str, tmp_path: Path) -> None:
    done = feddac(["simulate", "--engine", "inline", "--out", "run", *flags], tmp_path)
    assert done.returncode in (1, 2)
    assert_one_clear_line(done.stderr, part)


def test_a_run_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = feddac(["simulate", "--out", "file/run"], tmp_path)
    assert done.returncode == 1
    assert_one_clear_line(done.stderr, "file/run")


def test_a_run_folder_that_holds_a_run_is_not_overwritten(small_run: list[str], tmp_path: Path) -> None:
    first = feddac(["simulate", *small_run, "--engine", "inline", "--out", "run"], tmp_path)
    assert first.returncode == 0, first.stderr
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    done = feddac(["simulate", *small_run, "--engine", "inline", "--out", "run"], tmp_path)
    assert done.returncode == 1
    assert_one_clear_line(done.stderr, "--resume")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def _other_configuration(run: Path) -> list[str]:
    return ["--resume", str(run), "--learning-rate", "0.5"]


def _damaged_weights(run: Path) -> list[str]:
    weights = sorted((run / "checkpoint").glob("round-*/*.safetensors"))[-1]
    content = bytearray(weights.read_bytes())
    content[-20] ^= 255
    weights.write_bytes(content)
    return ["--resume", str(run)]


def _truncated_weights(run: Path) -> list[str]:
    weights = sorted((run / "checkpoint").glob("round-*/*.safetensors"))[-1]
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
    damage: Callable[[Path], list[str]], part: str, small_run: list[str], tmp_path: Path
) -> None:
    first = feddac(["simulate", *small_run, "--engine", "inline", "--out", "run"], tmp_path)
    assert first.returncode == 0, first.stderr
    done = feddac(["simulate", "--engine", "inline", *damage(tmp_path / "run")], tmp_path)
    assert done.returncode == 1
    assert_one_clear_line(done.stderr, part)


def test_no_network_where_a_download_is_needed(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"
    variables = {"HTTP_PROXY": nobody, "HTTPS_PROXY": nobody, "http_proxy": nobody, "https_proxy": nobody}
    done = feddac(["simulate", "--data", "cifar10", "--engine", "inline", "--out", "run"], tmp_path, variables)
    assert done.returncode == 1
    assert_one_clear_line(done.stderr, "cifar10")
