"""The ServerApp as Flower runs it: settings from the run configuration, a report at the end, resuming by its folder."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

import server.app
from common.config import Config
from common.errors import CheckpointError, ConfigurationError
from server.run_folder import RunFolder


@pytest.fixture
def run_app(run_inline: Callable[..., Any]) -> Callable[[Config], None]:
    def run(config: Config) -> None:
        context = Context(1, 1, {}, RecordDict(), config.to_mapping())
        run_inline(lambda grid: server.app.app(grid, context), config)

    return run


def test_both_apps_are_found_by_flowers_static_check() -> None:
    for package in ("server", "client"):
        path = Path(server.app.__file__).parent.parent / package / "app.py"
        assignments = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign)]
        assert any(isinstance(node.targets[0], ast.Name) and node.targets[0].id == "app" for node in assignments)


def test_it_writes_the_run_folder_and_the_report(
    run_app: Callable[..., None], small_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = small_config(out=str(tmp_path / "run"))
    run_app(config)
    folder = RunFolder.open(tmp_path / "run")
    assert Config.from_mapping(folder.read_config()) == config
    assert folder.read_summary()["rounds"] == 2
    assert folder.report_path.read_text().lower().startswith("<!doctype html>")


def test_started_again_it_resumes(
    run_app: Callable[..., None], small_config: Callable[..., Config], tmp_path: Path
) -> None:
    run_app(small_config(out=str(tmp_path / "run"), rounds=1))
    run_app(small_config(out=str(tmp_path / "run"), rounds=2))
    folder = RunFolder.open(tmp_path / "run")
    assert [event["round"] for event in folder.events("round")] == [1, 2]


def test_it_does_not_resume_with_other_settings(
    run_app: Callable[..., None], small_config: Callable[..., Config], tmp_path: Path
) -> None:
    run_app(small_config(out=str(tmp_path / "run")))
    with pytest.raises(CheckpointError, match="momentum"):
        run_app(small_config(out=str(tmp_path / "run"), momentum=0.1))


def test_a_wrong_setting_is_told_before_any_work(run_inline: Callable[..., Any], small_config: Any) -> None:
    context = Context(1, 1, {}, RecordDict(), {"learning-rate": "fast"})
    with pytest.raises(ConfigurationError, match="learning-rate must be a number"):
        run_inline(lambda grid: server.app.app(grid, context), small_config())
