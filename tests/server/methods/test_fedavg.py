"""FedAvg with one model for all: the smallest common one, an oracle, or without the weak devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.architecture import Architecture
from common.config import Config
from common.errors import BudgetError
from common.models.description import BaseNetwork
from common.slicing import slice_state
from server.cohorts import Cohort
from server.devices import Device
from server.methods.averaged import Averaged
from server.methods.pretraining import random_state
from server.methods.slices import smallest_costs
from server.report.build import build_report
from server.run_folder import RunFolder
from tests.examples import slow
from tests.server.helpers import TWO_BUDGETS, Crash, find_cohorts, slow_in

FULL = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10))
FLEET = TWO_BUDGETS.replace('"12k"', '"20k"')  # the larger ones hold the whole network


@pytest.fixture
def make_config(small_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Config]:
    (tmp_path / "fleet.toml").write_text(FLEET)
    fleet = str(tmp_path / "fleet.toml")

    def make(model: str, **changes: Any) -> Config:
        defaults = {"method": "fedavg", "fedavg_model": model, "pretraining_epochs": 2, "fleet": fleet}
        return small_config(**{**defaults, "max_params": "", **changes})

    return make


@pytest.fixture
def three(make_device: Callable[..., Device]) -> list[Device]:
    return [make_device("a", params=6000), make_device("b", params=20000, macs=7000), make_device("c", params=20000)]


def cohort_of(config: Config, devices: list[Device], folder: RunFolder) -> Any:
    (cohort,) = find_cohorts(devices, config, folder)
    return cohort


def test_smallest_is_the_largest_slice_that_fits_every_device(
    make_config: Callable[..., Config], three: list[Device], run_folder: RunFolder, make_device: Callable[..., Device]
) -> None:
    # 64 pixels, h hidden units, 10 classes: 75 h + 10 parameters and 74 h MACs
    config = make_config("smallest", pretraining_epochs=0)
    cohort = cohort_of(config, three, run_folder)
    assert cohort.network.indices["hidden"] == tuple(range(79))
    assert cohort.devices == ["a", "b", "c"]
    tighter = make_device("d", macs=74 * 50)
    assert cohort_of(config, [*three, tighter], run_folder).network.sizes["hidden"] == 49


def test_smallest_asks_of_no_device_to_be_as_slow_as_others_in_what_they_are_slow_in(
    make_config: Callable[..., Config], run_folder: RunFolder, make_device: Callable[..., Device]
) -> None:
    """A device that were as slow as either could hold nothing: the smallest slice would take 1.3 of its time."""
    floor = smallest_costs(FULL.base)
    one, other = slow_in("linear", 0.6, floor), slow_in("other", 0.7, floor)
    assert not one.meet(other).admits(floor)
    devices = [make_device("a", latency=one.latency), make_device("b", latency=other.latency)]
    cohort = cohort_of(make_config("smallest", pretraining_epochs=0), devices, run_folder)
    assert (cohort.network.sizes["hidden"], cohort.devices) == (11, ["a", "b"])  # 11 = floor(8 / 0.7)


def test_smallest_refuses_a_device_that_can_hold_nothing(
    make_config: Callable[..., Config], three: list[Device], run_folder: RunFolder, make_device: Callable[..., Device]
) -> None:
    config = make_config("smallest", pretraining_epochs=0)
    cohort = cohort_of(config, [*three, make_device("poor", params=100)], run_folder)
    assert cohort.devices == ["a", "b", "c"]
    assert [(event["device"], event["status"]) for event in run_folder.events("device")] == [("poor", "rejected")]
    with pytest.raises(BudgetError, match="610 parameters"):
        cohort_of(config, [make_device("poor", params=100)], run_folder)


def test_largest_is_the_base_network_on_every_device(
    make_config: Callable[..., Config], three: list[Device], run_folder: RunFolder
) -> None:
    cohort = cohort_of(make_config("largest", pretraining_epochs=0), three, run_folder)
    assert cohort.network == FULL
    assert cohort.devices == ["a", "b", "c"]
    assert run_folder.events("device") == []


def test_drop_weak_refuses_those_that_cannot_hold_the_base_network(
    make_config: Callable[..., Config], three: list[Device], run_folder: RunFolder, make_device: Callable[..., Device]
) -> None:
    cohort = cohort_of(make_config("drop-weak", pretraining_epochs=0), three, run_folder)
    assert (cohort.network, cohort.devices) == (FULL, ["c"])
    refused = run_folder.events("device")
    assert [event["device"] for event in refused] == ["a", "b"]
    assert all(event["status"] == "rejected" and "mlp, which needs" in event["reason"] for event in refused)
    exact = make_device("exact", params=FULL.costs.params)
    with pytest.raises(BudgetError, match="no device can hold mlp, which needs 14,800 MACs, 15,010 parameters"):
        cohort_of(make_config("drop-weak"), [exact], run_folder)


def test_pretraining_starts_from_the_shared_random_weights_and_changes_them(
    make_config: Callable[..., Config], three: list[Device], run_folder: RunFolder
) -> None:
    untrained = cohort_of(make_config("smallest", initial_weights="random"), three, run_folder)
    small = untrained.network
    expected = slice_state(random_state(FULL, 0), FULL, small)
    assert untrained.weights.tobytes() == small.layout.flatten(expected).tobytes()
    assert run_folder.events("pretraining") == []
    trained = cohort_of(make_config("smallest"), three, run_folder)
    assert len(run_folder.events("pretraining")) == 2
    assert trained.search_accuracy > 0.3 > untrained.search_accuracy


@pytest.mark.parametrize(("model", "kept"), [("smallest", False), ("largest", True), ("drop-weak", False)])
def test_only_the_oracle_ignores_budgets(
    model: str,
    kept: bool,
    make_config: Callable[..., Config],
    make_method: Callable[..., Averaged],
    make_device: Callable[..., Device],
) -> None:
    cohort = Cohort("cohort-0", FULL, FULL.layout.flatten(FULL.build(0).state_dict()), 0.5, [])
    method = make_method([cohort], make_config(model))
    assert method.place(make_device("rich")) is cohort
    assert (method.place(make_device("poor", macs=1)) is cohort) == kept


@pytest.mark.parametrize(
    ("model", "devices", "over", "rejected"), [("smallest", 3, 0, 0), ("largest", 3, 2, 0), ("drop-weak", 1, 0, 2)]
)
def test_a_whole_run(
    model: str,
    devices: int,
    over: int,
    rejected: int,
    make_config: Callable[..., Config],
    run_federation: Callable[..., Any],
    tmp_path: Path,
) -> None:
    summary = run_federation(make_config(model), tmp_path / "run")
    (cohort,) = summary["cohorts"]
    assert (cohort["devices"], cohort["over_budget"]) == (devices, over)
    assert (summary["method"], summary["epochs_on_reference"]) == ("fedavg", 2)
    assert summary["outcomes"] == {"trained": 2 * devices, "late": 0, "failed": 0, "rejected": rejected}
    assert summary["test_accuracy"] > 0.5
    assert "cohort-0" in build_report(tmp_path / "run").read_text()


@pytest.mark.parametrize("model", ["smallest", "largest"])
@pytest.mark.parametrize("instant", [10, *slow(6)])
def test_a_killed_run_resumes_to_the_same_weights(
    model: str, instant: int, make_config: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    config = make_config(model)
    whole = run_federation(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_federation(config, tmp_path / "cut", progress=Crash(instant))
    resumed = run_federation(config, tmp_path / "cut", resume=True)
    assert resumed["cohorts"] == whole["cohorts"]
    name = "models/cohort-0.safetensors"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
