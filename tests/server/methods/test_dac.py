"""DAC's cohorts: from a search, or from architecture files; random weights are slices of one network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.errors import ArchitectureError, BudgetError, ConfigurationError, FedDACError
from common.models.description import BaseNetwork
from common.slicing import slice_state
from dac.files import Member, load_member, save_member
from server.cohorts import Cohort
from server.devices import Device
from server.methods.pretraining import random_state
from server.report.build import build_report
from server.run_folder import RunFolder
from simulation import preflight
from tests.server.helpers import TWO_BUDGETS, architecture_of, find_cohorts

BASE = BaseNetwork("mlp", (1, 8, 8), 10)


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """Architecture files of 20, 60 and 100 hidden units, no first ones, below a folder."""
    folder = tmp_path / "found"
    folder.mkdir()
    for channels in (20, 60, 100):
        save(folder, Architecture.with_kept(BASE, {"hidden": range(200 - channels, 200)}))
    return folder


def save(folder: Path, architecture: Architecture) -> Path:
    path = folder / f"hidden-{architecture.sizes['hidden']:03d}.json"
    member = Member(architecture, DeviceBudget(), architecture.build(1).state_dict(), 0.5)
    save_member(path, member, name=path.stem, parent=None, seed=0)
    return path


@pytest.fixture
def cohorts_of(small_config: Callable[..., Config], run_folder: RunFolder) -> Callable[..., list[Cohort]]:
    def find(devices: list[Device], **changes: Any) -> list[Cohort]:
        config = small_config(max_params="", **changes)
        return find_cohorts(devices, config, run_folder)

    return find


def test_each_device_gets_the_largest_given_architecture_that_fits(
    cohorts_of: Callable[..., list[Cohort]], found: Path, make_device: Callable[..., Device], run_folder: RunFolder
) -> None:
    # 75 h + 10 parameters: 1510, 4510 and 7510
    devices = [make_device("a", params=4511), make_device("b", params=4510), make_device("c"), make_device("d", macs=9)]
    cohorts = cohorts_of(devices, architectures=str(found))
    assert [(architecture_of(cohort).sizes["hidden"], cohort.devices) for cohort in cohorts] == [
        (100, ["c"]),
        (60, ["a"]),
        (20, ["b"]),
    ]
    assert [cohort.name for cohort in cohorts] == ["cohort-0", "cohort-1", "cohort-2"]
    for cohort in cohorts:
        given = cohort.network.layout.flatten(cohort.network.build(1).state_dict())
        assert cohort.weights.tobytes() == given.tobytes()
        assert Architecture.from_json(run_folder.architecture_path(cohort.name).read_text()) == cohort.network
    (refused,) = run_folder.events("device")
    assert (refused["device"], refused["status"]) == ("d", "rejected")
    assert "the smallest needs 1,480 MACs" in refused["reason"]
    assert run_folder.events("search") == []
    assert len(run_folder.events("architecture")) == 3


def test_a_single_file_is_given_to_all(
    cohorts_of: Callable[..., list[Cohort]], found: Path, make_device: Callable[..., Device]
) -> None:
    cohorts = cohorts_of([make_device("a"), make_device("b")], architectures=str(found / "hidden-060.json"))
    assert [cohort.devices for cohort in cohorts] == [["a", "b"]]


def bad_json(folder: Path) -> Path:
    (folder / "hidden-060.json").write_text("{")
    return folder


def bad_content(folder: Path) -> Path:
    path = folder / "hidden-060.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kept": {"hidden": "0-999"}}))
    return folder


def bad_weights(folder: Path) -> Path:
    (folder / "hidden-060.search.safetensors").write_bytes(b"torn")
    return folder


def other_images(folder: Path) -> Path:
    return save(folder, Architecture.full(BaseNetwork("mlp", (3, 32, 32), 10)))


def other_classes(folder: Path) -> Path:
    return save(folder, Architecture.full(BaseNetwork("mlp", (1, 8, 8), 7)))


def empty(folder: Path) -> Path:
    (folder / "none").mkdir()
    return folder / "none"


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda folder: folder / "missing", ConfigurationError, "there is no file or folder .*missing; feddac search"),
        (empty, ConfigurationError, r"the folder .*none holds no architecture file \(\*\.json\)"),
        (bad_json, ArchitectureError, r"cannot read the architecture file .*hidden-060\.json"),
        (bad_content, ArchitectureError, r"hidden-060\.json: channel 999 is out of range"),
        (bad_weights, ArchitectureError, r"hidden-060\.search\.safetensors is damaged"),
        (other_images, ArchitectureError, r"hidden-200\.json is for images of shape \(3, 32, 32\) in 10 classes"),
        (other_classes, ArchitectureError, r"hidden-200\.json is for images .* in 7 classes, but the data set has"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(
    spoil: Callable[[Path], Path],
    error: type[FedDACError],
    message: str,
    cohorts_of: Callable[..., list[Cohort]],
    found: Path,
    make_device: Callable[..., Device],
) -> None:
    with pytest.raises(error, match=message) as caught:
        cohorts_of([make_device()], architectures=str(spoil(found)))
    assert "\n" not in str(caught.value)


def test_when_no_device_can_hold_a_given_architecture_the_smallest_is_named(
    cohorts_of: Callable[..., list[Cohort]], found: Path, make_device: Callable[..., Device]
) -> None:
    with pytest.raises(BudgetError, match="any of the given architectures, of which the smallest needs 1,480 MACs"):
        cohorts_of([make_device(macs=9)], architectures=str(found))


def test_a_run_folder_has_the_architectures_that_its_run_has_found(
    cohorts_of: Callable[..., list[Cohort]], found: Path, make_device: Callable[..., Device], tmp_path: Path
) -> None:
    with RunFolder.create(tmp_path / "search") as search:
        search.write_config({"data": "digits"})
        search.write_budgets([])
    shutil.copytree(found, search.architectures_folder, dirs_exist_ok=True)
    devices = [make_device("a", params=4511), make_device("b", params=4000)]
    of_files, of_run = (cohorts_of(devices, architectures=str(one)) for one in (found, search.path))
    assert [one.weights.tobytes() for one in of_files] == [one.weights.tobytes() for one in of_run]
    shutil.rmtree(search.architectures_folder)
    with pytest.raises(ConfigurationError, match=r"there is no file or folder .*/search/architectures; feddac"):
        cohorts_of(devices, architectures=str(search.path))


def test_only_architectures_of_one_base_network_can_be_averaged_across_cohorts(
    cohorts_of: Callable[..., list[Cohort]], found: Path, make_device: Callable[..., Device]
) -> None:
    save(found, Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10, width=0.25)))
    devices = [make_device("a", params=4511), make_device("b", params=4000)]
    with pytest.raises(ArchitectureError, match=r"hidden-050\.json is cut from another base network than .*020\.json"):
        cohorts_of(devices, architectures=str(found), aggregation="overlap")
    assert [architecture_of(c).sizes["hidden"] for c in cohorts_of(devices, architectures=str(found))] == [60, 50]


@pytest.mark.parametrize("given", [False, True])
def test_random_weights_agree_wherever_channels_overlap(
    given: bool, cohorts_of: Callable[..., list[Cohort]], found: Path, make_device: Callable[..., Device]
) -> None:
    devices = [make_device("a", params=3000), make_device("b", params=6000)]
    source = {"architectures": str(found)} if given else {}
    large, small = cohorts_of(devices, initial_weights="random", **source)
    full = Architecture.full(BASE)
    assert architecture_of(small).sizes != architecture_of(large).sizes
    for cohort in (large, small):
        expected = slice_state(random_state(full, 0), full, cohort.network)
        assert cohort.weights.tobytes() == cohort.network.layout.flatten(expected).tobytes()
    state = large.network.layout.unflatten(large.weights)
    shared = slice_state(state, large.network, small.network)
    own = small.network.layout.unflatten(small.weights)
    assert all(torch.equal(shared[name], value) for name, value in own.items())


def test_random_weights_are_what_the_run_folder_says_it_began_with(
    cohorts_of: Callable[..., list[Cohort]], make_device: Callable[..., Device], run_folder: RunFolder
) -> None:
    (cohort,) = cohorts_of([make_device("a", params=6000)], initial_weights="random", warmup_epochs=6)
    kept = load_member(run_folder.architecture_path(cohort.name))
    assert kept.architecture.layout.flatten(kept.state).tobytes() == cohort.weights.tobytes()
    (event,) = run_folder.events("architecture")
    assert event["validation_accuracy"] == cohort.search_accuracy < 0.35


def test_a_run_with_given_architectures_and_its_resumption(
    small_config: Callable[..., Config], run_federation: Callable[..., Any], found: Path, tmp_path: Path
) -> None:
    (tmp_path / "fleet.toml").write_text(TWO_BUDGETS)
    config = small_config(
        fleet=str(tmp_path / "fleet.toml"), max_params="", architectures=str(found), rounds=3, learning_rate=0.05
    )
    summary = run_federation(config, tmp_path / "whole")
    assert (summary["method"], summary["epochs_on_reference"]) == ("dac", 0)
    assert [entry["params"] for entry in summary["cohorts"]] == [7510, 4510]
    assert [entry["over_budget"] for entry in summary["cohorts"]] == [0, 0]
    assert "cohort-1" in build_report(tmp_path / "whole").read_text()
    shorter = Config.from_mapping({**config.to_mapping(), "rounds": 1})
    run_federation(shorter, tmp_path / "cut")
    found.rename(tmp_path / "moved")  # the checkpoint has all that was read of it
    with pytest.raises(ConfigurationError, match="there is no file or folder"):
        preflight.check(config)
    preflight.check(config, begun=True)
    run_federation(config, tmp_path / "cut", resume=True)
    for name in ("models/cohort-0.safetensors", "models/cohort-1.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_searched_run_counts_its_epochs_on_the_reference_set(
    small_config: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    summary = run_federation(small_config(warmup_epochs=3, fine_tune_epochs=2, rounds=1), tmp_path / "run")
    assert (summary["method"], summary["epochs_on_reference"]) == ("dac", 5)
    (cohort,) = summary["cohorts"]
    architecture = Architecture.from_json((tmp_path / "run/architectures/cohort-0.json").read_text())
    assert cohort["params"] == architecture.costs.params < 15_000
