"""What is left of a comparison, said without doing any of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import DataError
from feddac.cli.main import run
from feddac.comparison.announce import announcement, estimated_seconds
from feddac.comparison.plan import Experiment
from feddac.comparison.remaining import Remaining, remaining, unfinished
from server.run_folder import RunFolder

GRID = '[grid]\npartition = ["iid", "classes:2"]\n[methods.plain]\n[methods.scratch]\ninitial-weights = "random"\n'
SMALL = '[settings]\nmodel = "mlp"\ndevices = 2\ntrain-images = 300\n'


@pytest.fixture
def plan(small_experiment: Callable[..., Experiment]) -> Experiment:
    """Two settings of two methods and two seeds."""
    return small_experiment(settings=SMALL, rest=GRID)


def test_runs_are_done_begun_or_left(plan: Experiment, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / plan.runs[0].folder) as folder:
        folder.write_summary({})
    with RunFolder.create(tmp_path / plan.runs[1].folder) as folder:
        folder.checkpoint_folder.mkdir(exist_ok=True)
        (folder.checkpoint_folder / "latest").write_text("1")
    RunFolder.create(tmp_path / plan.runs[2].folder).close()  # has a folder, but nothing was done
    assert remaining(plan, tmp_path) == [Remaining("partition iid", 1, 1, 2), Remaining("partition classes:2", 0, 0, 4)]
    assert unfinished(plan.runs, tmp_path) == list(plan.runs[1:])
    assert "8 runs (2 methods, 2 seeds, 2 settings), 1 of them done: about" in announcement(plan, tmp_path, 1)


def test_without_a_folder_everything_is_left(plan: Experiment) -> None:
    assert remaining(plan, None) == [Remaining("partition iid", 0, 0, 4), Remaining("partition classes:2", 0, 0, 4)]
    assert announcement(plan, None, 2).startswith("8 runs (2 methods, 2 seeds, 2 settings), 2 at a time: about ")


def test_devices_that_can_afford_less_take_less_time(small_experiment: Callable[..., Experiment]) -> None:
    one_model = SMALL.replace('"mlp"', '"cnn"') + 'method = "fedavg"\nmax-macs = "{}"\n'
    rich, poor = (small_experiment(settings=one_model.format(bound)).runs[0].config for bound in ("100M", "40k"))
    assert estimated_seconds([poor]) < estimated_seconds([rich])


def test_how_long_is_not_known_without_the_data(small_experiment: Callable[..., Experiment]) -> None:
    plan = small_experiment(settings=SMALL + 'data = "/nowhere.parquet"\n', rest=GRID)
    with pytest.raises(DataError, match=r"/nowhere\.parquet"):
        estimated_seconds([one.config for one in plan.runs])
    said = announcement(plan, None, 1)
    assert said.startswith("8 runs (2 methods, 2 seeds, 2 settings); how long they take is not known: ")
    assert "/nowhere.parquet" in said


def test_show_says_it_and_writes_nothing(
    write_experiment: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", str(write_experiment(settings=SMALL, rest=GRID)), "--show"]
    for more in ([], ["--out", str(tmp_path / "out")]):
        assert run([*command, *more]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("8 runs (2 methods, 2 seeds, 2 settings)")
        rows = [line.split() for line in shown.splitlines() if "partition" in line]
        assert rows == [["partition", "iid", "0", "0", "4"], ["partition", "classes:2", "0", "0", "4"]]
    assert not (tmp_path / "out").exists()


def test_whoever_does_not_only_ask_must_say_where(
    write_experiment: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", str(write_experiment())]) == 2
    assert capsys.readouterr().err == "Error: --out FOLDER is missing: it says where runs and results are kept\n"
