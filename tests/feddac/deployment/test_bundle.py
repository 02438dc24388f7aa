"""The app bundle and the node configuration: what travels to other machines."""

import io
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args

from client.identity import identify
from common.budget import DeviceBudget
from common.config import Config
from common.fleet import VirtualDevice, virtual_fleet
from common.groups import FleetSettings
from feddac.deployment.bundle import app_bundle
from feddac.deployment.local import node_config
from simulation.environment import CODE_ROOT


def files_of(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_bundle_holds_every_module_that_server_and_devices_import() -> None:
    names = set(files_of(app_bundle(Config())))
    for package in ("client", "common", "dac", "server"):
        modules = {path.relative_to(CODE_ROOT).as_posix() for path in (CODE_ROOT / package).glob("**/*.py")}
        assert modules <= names


def test_the_bundle_needs_nothing_to_be_installed() -> None:
    project = tomllib.loads(files_of(app_bundle(Config()))["pyproject.toml"].decode())
    assert project["project"]["dependencies"] == []


@pytest.mark.parametrize(("said", "shipped"), [("1.2.3", "1.2.3"), ("unknown", "0.0.0")])
def test_the_bundle_has_the_version_of_the_code(said: str, shipped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feddac.deployment.bundle.version", lambda: said)
    project = tomllib.loads(files_of(app_bundle(Config()))["pyproject.toml"].decode())
    assert project["project"]["version"] == shipped


def test_the_settings_are_the_run_configuration() -> None:
    config = Config.from_mapping({"rounds": 3, "out": "/some where/run", "fleet": "phone"})
    project = tomllib.loads(files_of(app_bundle(config))["pyproject.toml"].decode())
    assert Config.from_mapping(project["tool"]["flwr"]["app"]["config"]) == config


def test_the_bundle_of_one_configuration_is_always_the_same() -> None:
    assert app_bundle(Config()) == app_bundle(Config())


def test_a_wheel_without_a_project_file_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("client", "common", "dac", "server"):
        (tmp_path / package).symlink_to(CODE_ROOT / package)
    monkeypatch.setattr("feddac.deployment.bundle.CODE_ROOT", tmp_path)
    assert "server/app.py" in files_of(app_bundle(Config()))


@pytest.mark.parametrize("partition", range(5))
def test_a_supernode_is_the_device_it_would_be_in_a_simulation(partition: int) -> None:
    settings = FleetSettings(devices=5)
    device = virtual_fleet(settings)[partition]
    told = identify(parse_config_args([node_config(partition, 5, device)]), settings)
    dealt = identify({"partition-id": partition, "num-partitions": 5}, settings)
    assert told == dealt


def test_names_and_bounds_survive_the_command_line() -> None:
    device = VirtualDevice("my camera", "", DeviceBudget(macs=12_345_678, peak_memory_bytes=4096))
    parsed = parse_config_args([node_config(1, 3, device)])
    assert parsed == {
        "partition-id": 1,
        "num-partitions": 3,
        "device-name": "my camera",
        "max-macs": 12_345_678,
        "max-memory": 4096,
    }


def test_a_device_without_bounds_takes_its_place_in_the_fleet() -> None:
    assert node_config(2, 3, VirtualDevice("large", "", DeviceBudget())) == "partition-id=2 num-partitions=3"
