"""Mistakes that used to show only after the whole search, or after something was written."""

from pathlib import Path

import pytest

from common.config import Config
from common.errors import ConfigurationError
from feddac.cli.main import run
from server.sampling import epoch_range

SHORT = ["--model", "mlp", "--warmup-epochs", "0", "--epochs-per-step", "0", "--fine-tune-epochs", "0"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", str(2**64)],
        ["--seed", str(2**63)],
        ["--local-epochs", f"1-{2**70}"],
        ["--local-epochs", "9" * 5000],
        ["--local-epochs", "1000001"],
    ],
)
def test_numbers_that_no_run_can_use(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--engine", "inline", *SHORT, *flags, "--out", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_largest_numbers_that_a_run_can_use() -> None:
    assert Config.from_mapping({"seed": 2**63 - 1}).run.seed == 2**63 - 1
    assert epoch_range("1-1000000") == (1, 1_000_000)
    with pytest.raises(ConfigurationError, match="at most 1,000,000"):
        epoch_range("1-1000001")


def test_a_budget_name_that_no_file_can_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(f'[[budget]]\nname = "{"a" * 250}"\nmacs = 2000\n')
    assert run(["search", *SHORT, "--budgets", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "up to 64" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["simulate", "up"])
def test_resuming_a_search_as_a_federation_writes_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "search"
    assert run(["search", *SHORT, "--max-macs", "2k", "--out", str(folder)]) == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    assert run([command, "--resume", str(folder)]) == 1
    assert "holds a search or a training, no federated run" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
