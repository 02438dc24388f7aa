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


def test_a_fleet_file_sets_the_number_of_devices_unless_it_is_given(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("[[device]]\ncount = 3\n[[device]]\n")
    assert fit_to_fleet_file({"fleet": str(file)})["devices"] == 4
    assert fit_to_fleet_file({"fleet": str(file), "devices": 2})["devices"] == 2
    assert fit_to_fleet_file({"fleet": "phone"}) == {"fleet": "phone"}
