"""What `feddac tune` says would work does, as it is printed, or names the table of the file that is to be changed."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from feddac.cli.main import run
from tests.feddac.tuning.scripted import starter

Write = Callable[..., Path]

NARROW = """
[settings]
search-space = "inner"
max-macs = "300k"
fleet = "phone"
devices = 4
accelerator = "cpu"
train-images = 200
"""
"""No network of the default width, 1, fits; one of half the width does."""


def refusal(experiment: Path, out: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert run(["tune", str(experiment), "--trials", "1", "--out", str(out), *more]) == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert not out.exists()
    return errors.strip()


def test_a_setting_that_the_experiment_does_not_vary_is_a_flag_that_works(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("feddac.comparison.processes.start_run", starter())
    experiment = write_experiment(NARROW + "[methods.one]\n[methods.two]\nlearning-rate = 0.1\n")
    errors = refusal(experiment, tmp_path / "out", capsys)
    works = re.search("; this works: feddac (.*)", errors)
    assert works
    assert works[1].endswith("--width 0.5")
    assert run(shlex.split(works[1])) == 0


@pytest.mark.parametrize(
    ("rest", "table"),
    [
        ("[methods.one]\nwidth = 0.5\n[methods.two]\nwidth = 0.75", "methods.two"),
        ("[grid]\nwidth = [0.5, 1.0]\n[methods.two]", "grid"),
        ('[grid]\nsize = [{label = "large", width = 1.0}]\n[methods.two]', "grid"),
    ],
)
def test_a_setting_that_the_experiment_varies_is_to_be_changed_in_the_file(
    rest: str, table: str, write_experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = write_experiment(NARROW + rest)
    errors = refusal(experiment, tmp_path / "out", capsys)
    assert errors.startswith("Error: method two: device-00 (phone): no architecture fits")
    assert errors.endswith(f"; with width = 0.5 it works: change [{table}] of {experiment}")


def test_a_flag_that_helps_one_method_alone_is_not_recommended(
    write_experiment: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the wide network another bound would be needed than with the narrow one."""
    experiment = write_experiment(
        NARROW.replace('max-macs = "300k"\n', "") + "[methods.one]\nwidth = 0.25\n[methods.two]\nwidth = 1.0"
    )
    errors = refusal(experiment, tmp_path / "out", capsys, "--max-params", "1000")
    assert re.search(r"max-params = '\S+' it works: change \[methods.one\] of \S+ instead of --max-params$", errors)
