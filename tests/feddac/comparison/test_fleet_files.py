"""Which devices a run of a comparison has: what its fleet file said, wherever that lies, and not how it is called."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from common.progress import Silent
from feddac.comparison.execute import execute
from feddac.comparison.folders import prepare_folders
from feddac.comparison.plan import Experiment
from server.run_folder import RunFolder

DEVICES = '[[device]]\nname = "small"\ncount = 3\nparams = "15k"\n'


@pytest.fixture
def planned(small_experiment: Callable[..., Experiment]) -> Callable[[Path], Experiment]:
    """The experiment of one run on the devices of a file."""

    def plan(fleet: Path | str) -> Experiment:
        settings = f'model = "mlp"\nrounds = 1\nfleet = "{fleet}"\npretraining-epochs = 0\ntrain-images = 300'
        return small_experiment(top="", settings=f"[settings]\n{settings}", rest='[methods.only]\nmethod = "fedavg"')

    return plan


def file_at(place: Path, content: str = DEVICES) -> Path:
    place.parent.mkdir(exist_ok=True)
    place.write_text(content)
    return place


def test_a_run_belongs_to_the_content_of_the_fleet_file(planned: Callable[[Path], Experiment], tmp_path: Path) -> None:
    file, out = file_at(tmp_path / "fleet.toml"), tmp_path / "out"
    plan = planned(file)
    prepare_folders(plan.runs, out)
    assert execute(plan.runs, out, 1, "inline", Silent()) == []
    folder = RunFolder(out / plan.runs[0].folder)
    folder.summary_path.unlink()  # as a run is left that was cut short
    assert execute(plan.runs, out, 1, "inline", Silent()) == []
    assert folder.read_config()["fleet"] == str(folder.fleet_path.resolve())
    prepare_folders(plan.runs, out)
    prepare_folders(planned(file_at(tmp_path / "elsewhere/same.toml")).runs, out)
    file.write_text(DEVICES.replace("15k", "14k"))
    with pytest.raises(ConfigurationError) as refused:
        prepare_folders(planned(file).runs, out)
    assert str(refused.value) == (
        f"{folder.path} holds a run of other devices than {file} describes: give the file as it was, choose another "
        "--out, or delete that folder"
    )


def test_a_comparison_that_was_moved_goes_on(planned: Callable[[Path], Experiment], tmp_path: Path) -> None:
    plan = planned(file_at(tmp_path / "before/fleet.toml"))
    prepare_folders(plan.runs, tmp_path / "before/out")
    assert execute(plan.runs, tmp_path / "before/out", 1, "inline", Silent()) == []
    shutil.move(tmp_path / "before", tmp_path / "after")
    prepare_folders(planned(tmp_path / "after/fleet.toml").runs, tmp_path / "after/out")
    RunFolder(tmp_path / "after/out" / plan.runs[0].folder).summary_path.unlink()
    assert execute(plan.runs, tmp_path / "after/out", 1, "inline", Silent()) == []


def test_a_run_that_has_not_begun_takes_the_fleet_as_it_is_now(
    planned: Callable[[Path | str], Experiment], tmp_path: Path
) -> None:
    file, out = file_at(tmp_path / "fleet.toml"), tmp_path / "out"
    prepare_folders(planned(file).runs, out)
    folder = RunFolder(out / "all/only/seed-0")
    assert folder.fleet_path.read_text() == DEVICES
    file.write_text(DEVICES.replace("15k", "14k"))
    prepare_folders(planned(file).runs, out)
    assert folder.fleet_path.read_text() == file.read_text()
    prepare_folders(planned("phone").runs, out)
    assert not folder.fleet_path.exists()
    assert folder.read_config()["fleet"] == "phone"
