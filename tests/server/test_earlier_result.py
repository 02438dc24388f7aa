"""A finished run that is made to go on for more rounds has no result until it ends again; the earlier one is kept."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.config import Config
from common.progress import Silent
from feddac.cli.main import run as feddac
from feddac.runs import read_run
from server.federation import federate
from server.report.build import build_report
from server.report.record import read_run as read_record
from server.run_folder import RunFolder
from tests.server.helpers import models


class CrashAfter(Silent):
    """Progress that ends the process, so to speak, when it is told of the end of a round."""

    def __init__(self, number: int) -> None:
        self.news = f"round {number}: mean accuracy"

    def advance(self, stage: str, units: int, message: str) -> None:
        if message.startswith(self.news):
            raise KeyboardInterrupt


@pytest.fixture
def make(
    small_config: Callable[..., Config], run_inline: Callable[..., Any], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Make the run in tmp_path/run, or go on with it, until it has so many rounds."""

    def start(rounds: int, resume: bool = True, progress: Silent | None = None) -> dict[str, Any]:
        config, path = small_config(rounds=rounds), tmp_path / "run"
        with RunFolder.open(path) if resume else RunFolder.create(path) as folder:
            if not resume:
                folder.write_config(config.to_mapping())
            summary: dict[str, Any] = run_inline(
                lambda grid: federate(grid, config, folder, progress or Silent(), resume), config
            )
        build_report(path)
        return summary

    return start


def test_a_finished_run_that_goes_on_has_no_result_until_it_ends_again(
    make: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "run", RunFolder(tmp_path / "run")
    make(1, resume=False)
    trained, summary = models(path), folder.read_summary()
    with pytest.raises(KeyboardInterrupt):
        make(3, progress=CrashAfter(2))
    record = read_record(folder)
    assert (record.finished, record.rounds) == (False, 2)
    assert math.isnan(record.device_macs_per_round)  # which only a summary says
    assert not read_run(path).finished
    assert read_run(path).test_accuracy is None
    assert not folder.report_path.exists()
    assert feddac(["runs", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2 of 3 rounds" in shown
    assert "%" not in shown
    before = RunFolder(path / "after-1-rounds")
    assert models(before.path) == trained
    assert before.read_summary() == summary
    assert "did not finish" not in before.report_path.read_text()
    assert make(3)["rounds"] == 3
    assert read_run(path).finished
    assert models(path) != trained
    assert [one.name for one in path.glob("after-*")] == ["after-1-rounds"]


def test_a_finished_run_that_is_resumed_for_no_more_rounds_keeps_its_result(
    make: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    make(1, resume=False)
    trained = models(tmp_path / "run")
    assert make(1)["rounds"] == 1
    assert models(tmp_path / "run") == trained
    assert not list((tmp_path / "run").glob("after-*"))
