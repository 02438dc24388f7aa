"""Images, architectures and genotypes count by their content: a run never goes on with other files of the same name."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from common.config import Config
from common.errors import CheckpointError, ConfigurationError
from common.settings import Scalar
from feddac.cli.main import run
from feddac.comparison.file_contents import FILE, FileContents
from feddac.comparison.folders import check_folders, prepare_folders
from feddac.comparison.plan import Experiment
from server.run_folder import RunFolder

Plan = Callable[..., Experiment]


def image(place: Path, grey: int) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(place)
    return place


def images(place: Path) -> Path:
    """A data set of two classes, and the image that a test changes."""
    image(place / "cat/1.png", 10)
    image(place / "dog/1.png", 200)
    return place / "cat/1.png"


def parquet(place: Path) -> Path:
    place.mkdir()
    (place / "train.parquet").write_bytes(b"images")
    return place / "train.parquet"


def one_parquet(place: Path) -> Path:
    place.write_bytes(b"images")
    return place


def saved(place: Path) -> Path:
    place.mkdir()
    (place / "state.json").write_text("{}")
    (place / "data-0.arrow").write_bytes(b"images")
    return place / "data-0.arrow"


def architectures(place: Path) -> Path:
    place.mkdir()
    (place / "budget-1.json").write_text("{}")
    return place / "budget-1.json"


def of_a_search(place: Path) -> Path:
    with RunFolder.create(place) as folder:
        folder.write_config({})
        folder.architecture_path("budget-1").write_text("{}")
    return folder.architecture_path("budget-1")


def genotype(place: Path) -> Path:
    place.write_text("{}")
    return place


CASES = pytest.mark.parametrize(
    ("key", "method", "name", "make"),
    [
        ("data", "fedavg", "mine", images),
        ("data", "fedavg", "mine", parquet),
        ("data", "fedavg", "mine", saved),
        ("data", "fedavg", "mine.parquet", one_parquet),
        ("architectures", "dac", "mine", architectures),
        ("architectures", "dac", "mine", of_a_search),
        ("architectures", "dac", "mine.json", genotype),
        ("fednas-genotype", "fednas", "cells.json", genotype),
    ],
)


def planned(small_experiment: Plan, key: str, method: str, name: str) -> Experiment:
    settings = f'[settings]\nmethod = "{method}"\ndevices = 2\n{key} = "{name}"\n'
    return small_experiment(top="", settings=settings, rest="[methods.only]\n")


@CASES
def test_work_is_not_gone_on_with_under_other_files(
    key: str, method: str, name: str, make: Callable[[Path], Path], small_experiment: Plan, tmp_path: Path
) -> None:
    changed, out = make(tmp_path / name), tmp_path / "out"
    plan = planned(small_experiment, key, method, name)
    prepare_folders(plan.runs, out)
    folder = RunFolder(out / plan.runs[0].folder)
    folder.write_summary({})
    os.utime(changed, (0, 0))
    prepare_folders(plan.runs, out)  # touched, but the same
    before = changed.read_bytes()
    changed.write_bytes(before + b" ")
    with pytest.raises(ConfigurationError) as refused:
        prepare_folders(plan.runs, out)
    assert str(refused.value) == (
        f"{folder.path} holds a run with other files than {key} = {str(tmp_path / name)!r} has now: give them as they "
        "were, choose another --out, or delete that folder"
    )
    changed.write_bytes(before)
    prepare_folders(plan.runs, out)
    (tmp_path / name).rename(tmp_path / "gone")  # nothing can be mixed in, and tables can be written anew
    prepare_folders(plan.runs, out)


def test_a_run_that_has_not_begun_takes_the_files_as_they_are_now(small_experiment: Plan, tmp_path: Path) -> None:
    file, out = image(images(tmp_path / "mine"), 11), tmp_path / "out"
    plan = planned(small_experiment, "data", "fedavg", "mine")
    prepare_folders(plan.runs, out)
    image(file, 12)
    prepare_folders(plan.runs, out)
    RunFolder(out / plan.runs[0].folder).write_summary({})
    prepare_folders(plan.runs, out)
    image(file, 11)
    with pytest.raises(ConfigurationError, match="with other files than data = "):
        prepare_folders(plan.runs, out)


def test_files_that_came_after_the_folder_count_too(small_experiment: Plan, tmp_path: Path) -> None:
    file, out = tmp_path / "cells.json", tmp_path / "out"
    plan = planned(small_experiment, "fednas-genotype", "fednas", str(file))
    prepare_folders(plan.runs, out)  # and its run fails
    file.write_text("{}")
    prepare_folders(plan.runs, out)
    RunFolder(out / plan.runs[0].folder).write_summary({})
    file.write_text("[]")
    with pytest.raises(ConfigurationError, match="with other files than fednas-genotype = "):
        prepare_folders(plan.runs, out)


def test_a_run_of_an_earlier_version_goes_on(small_experiment: Plan, tmp_path: Path) -> None:
    images(tmp_path / "mine")
    plan, out = planned(small_experiment, "data", "fedavg", "mine"), tmp_path / "out"
    prepare_folders(plan.runs, out)
    folder = RunFolder(out / plan.runs[0].folder)
    (folder.path / FILE).unlink()
    folder.write_summary({})
    assert check_folders(plan.runs, out) == []


def test_names_and_what_lies_beside_a_data_set_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "hub:a", "function.py"):
        (tmp_path / name).touch()
    for settings in ({}, {"data": "hub:a"}, {"data": "some.module:function"}):
        assert FileContents().of(Config.from_mapping(settings)) == {}
    assert FileContents().of(Config.from_mapping({"method": "fednas", "fednas-genotype": "DARTS_V2"})) == {}
    data = Config.from_mapping({"data": str(parquet(tmp_path / "mine").parent)})
    before = FileContents().of(data)
    assert list(before) == ["data"]
    images(tmp_path / "mine")  # such as runs in the same folder
    assert FileContents().of(data) == before
    (tmp_path / "mine/train-2.parquet").touch()
    assert FileContents().of(data) != before


def test_a_damaged_record_is_one_line(small_experiment: Plan, tmp_path: Path) -> None:
    images(tmp_path / "mine")
    plan, out = planned(small_experiment, "data", "fedavg", "mine"), tmp_path / "out"
    prepare_folders(plan.runs, out)
    for content in ("{", "[]"):
        (out / plan.runs[0].folder / FILE).write_text(content)
        with pytest.raises(CheckpointError, match=rf"{FILE} is damaged"):
            prepare_folders(plan.runs, out)


def test_show_says_what_the_command_would_refuse(
    write_experiment: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    images(tmp_path / "mine")
    settings = '[settings]\nmethod = "fedavg"\nmodel = "mlp"\ndevices = 2\nrounds = {}\ndata = "mine"\n'

    def show(rounds: int) -> int:
        path = write_experiment(top="", settings=settings.format(rounds), rest="[methods.only]\n")
        return run(["compare", str(path), "--out", str(out), "--show"])

    assert show(2) == 0
    assert not out.exists()
    with RunFolder.create(out / "all/only/seed-0") as folder:
        data = str(tmp_path / "mine")
        own: dict[str, Scalar] = {"method": "fedavg", "model": "mlp", "devices": 2, "rounds": 2, "data": data}
        folder.write_config({**Config().to_mapping(), **own})
        (folder.path / FILE).write_text(json.dumps({"data": "0"}))
    assert show(2) == 0  # nothing was done there
    folder.write_summary({})
    capsys.readouterr()
    assert show(3) == 2
    assert "holds a run with rounds = 2, not 3" in capsys.readouterr().err
    assert show(2) == 2
    assert "holds a run with other files than data = " in capsys.readouterr().err
    assert json.loads((folder.path / FILE).read_text()) == {"data": "0"}
