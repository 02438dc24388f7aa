"""The command line: help, usage mistakes in one line, exit codes, run folders."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import typer

from common.errors import BudgetError, ConfigurationError
from feddac.cli.failures import exit_code_of, run_ends_well
from feddac.cli.main import run
from simulation.environment import CODE_ROOT


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "feddac 0.2.0\n"


@pytest.mark.parametrize("command", [[], ["simulate"], ["report"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "--help"]) == 0
    assert "Usage: feddac" in capsys.readouterr().out


def test_simulate_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    run(["simulate", "--help"])
    assert "feddac simulate --resume" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["simulat"], 2, "No such command 'simulat'"),
        (["simulate", "--round", "3"], 2, "--round"),
        (["simulate", "--rounds", "many"], 2, "'many' is not a valid integer"),
        (["simulate", "--rounds", "-1"], 2, "rounds must be at least 0"),
        (["simulate", "--workers", "-1"], 2, "--workers"),
        (["simulate", "--engine", "cluster"], 2, "--engine must be one of ray, inline, batched, not 'cluster'"),
        (["simulate", "--workers", "4", "--engine", "inline"], 2, "--workers is for the ray engine, not for inline"),
        (["simulate", "--together", "4"], 2, "--together is for the batched engine, not for ray"),
        (["simulate", "--fleet", "phon"], 2, "did you mean 'phone'"),
        (["simulate", "--max-macs", "0"], 1, "max-macs must be a positive number"),
        (["simulate", "--out", "/proc/nowhere"], 2, "cannot write a run folder at /proc/nowhere"),
        (["simulate", "--config", "/nowhere.toml"], 2, "cannot be read"),
        (["simulate", "--resume", "/proc"], 1, "there is no run in /proc"),
        (["simulate", "--resume", "/proc", "--out", "x"], 2, "leave out --config and --out"),
        (["report", "/proc"], 1, "there is no run in /proc"),
        (["report"], 2, "Missing argument"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("Error: ")
    assert message in output.err
    assert output.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my run"
    with pytest.raises(typer.Exit) as caught, run_ends_well(folder):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == f"Interrupted; resume with: feddac simulate --resume '{folder}'\n"


def interrupted_in_a_zip_file(path: Path) -> None:
    """Which then cannot be closed, and says so in place of Ctrl-C."""
    with zipfile.ZipFile(path, "w") as file:
        part = file.open("part", "w")
        part.write(b"half")
        raise KeyboardInterrupt


def test_ctrl_c_that_makes_a_clean_up_fail_is_still_ctrl_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="open writing handle"):
        interrupted_in_a_zip_file(tmp_path / "a.zip")
    with pytest.raises(typer.Exit) as caught, run_ends_well(tmp_path):
        interrupted_in_a_zip_file(tmp_path / "a.zip")
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == f"Interrupted; resume with: feddac simulate --resume {tmp_path}\n"
    assert not (tmp_path / "error.txt").exists()


def test_a_bug_leaves_its_traceback_in_the_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, run_ends_well(tmp_path):
        raise ZeroDivisionError("no\nlines")
    assert caught.value.exit_code == 1
    where = tmp_path / "error.txt"
    assert capsys.readouterr().err == f"Error: a bug in FedDAC (ZeroDivisionError: no); its traceback is in {where}\n"
    assert "test_cli.py" in where.read_text()


def test_a_mistake_passes_through_the_run_folder(tmp_path: Path) -> None:
    with pytest.raises(BudgetError), run_ends_well(tmp_path):
        raise BudgetError("too small")
    assert list(tmp_path.iterdir()) == []


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(ConfigurationError("bad flag")) == 2
    assert exit_code_of(BudgetError("too small")) == 1
    assert capsys.readouterr().err == "Error: bad flag\nError: too small\n"
    assert exit_code_of(ZeroDivisionError()) == 1
    assert capsys.readouterr().err == (
        "ZeroDivisionError\nError: a bug in FedDAC (ZeroDivisionError); the lines above say where\n"
    )


RESTART_SCRIPT = """
import os, sys
from simulation.environment import restart_with_cpu_tuning
print(os.environ.get("MALLOC_MMAP_THRESHOLD_"), sys.argv[1:], flush=True)
restart_with_cpu_tuning()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_the_process_restarts_once_with_cpu_tuning_and_its_arguments() -> None:
    environment = {
        name: value for name, value in os.environ.items() if "MALLOC" not in name and "CPU_TUNED" not in name
    }
    done = subprocess.run(
        [sys.executable, "-c", RESTART_SCRIPT, "--out", "a b"],
        env={**environment, "PYTHONPATH": str(CODE_ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "None ['--out', 'a b']\n1073741824 ['--out', 'a b']\n"


def test_the_console_script_is_this_main() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "feddac.cli.main", "--version"],
        cwd=CODE_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "feddac 0.2.0\n"
