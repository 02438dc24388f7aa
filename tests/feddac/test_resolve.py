"""Settings that depend on the machine."""

from pathlib import Path

import pytest

from common.config import Config
from feddac.resolve import fit_to_fleet_file, with_absolute_paths


def test_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "digits").mkdir()
    config = with_absolute_paths(
        Config.from_mapping({"data": "images", "data-folder": "cache", "fleet": "fleet.toml", "out": "runs/a"})
    )
    assert config.data.data == str(tmp_path / "images")
    assert config.data.data_folder == str(tmp_path / "cache")
    assert config.fleet.fleet == str(tmp_path / "fleet.toml")
    # A folder that is called like a data set does not hide it; nor is a list of profiles a path.
    assert with_absolute_paths(Config()) == Config()
    assert with_absolute_paths(Config.from_mapping({"data": "./digits"})).data.data == str(tmp_path / "digits")
    assert with_absolute_paths(Config.from_mapping({"data": "hub:a/b"})).data.data == "hub:a/b"


@pytest.mark.parametrize(
    ("given", "absolute"),
    [("cells.json", "{here}/cells.json"), ("FedNAS_V1", "FedNAS_V1"), ("./FedNAS_V1", "{here}/FedNAS_V1")],
)
def test_a_genotype_is_a_path_unless_it_is_published(
    given: str, absolute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cells.json", "FedNAS_V1"):
        (tmp_path / name).touch()
    settings = {"method": "fednas", "fednas-genotype": given}
    assert with_absolute_paths(Config.from_mapping(settings)).to_mapping()["fednas-genotype"] == absolute.format(
        here=tmp_path
    )
    # what is neither is named in the error as it was written
    unknown = Config.from_mapping({**settings, "fednas-genotype": "DARTS_V9"})
    assert with_absolute_paths(unknown) == unknown


def test_a_fleet_file_sets_the_number_of_devices_unless_it_is_given(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("[[device]]\ncount = 3\n[[device]]\n")
    assert fit_to_fleet_file({"fleet": str(file)})["devices"] == 4
    assert fit_to_fleet_file({"fleet": str(file), "devices": 2})["devices"] == 2
    assert fit_to_fleet_file({"fleet": "phone"}) == {"fleet": "phone"}
