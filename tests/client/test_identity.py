"""Who a device is: declared, dealt by a simulation, or measured."""

from pathlib import Path
from typing import Any

import pytest

from client.identity import identify
from common.budget import DeviceBudget, LocalTraining
from common.errors import BudgetError, ConfigurationError
from common.fleet import PROFILES, virtual_fleet
from common.groups import FleetSettings
from common.rates import LatencyBound
from common.toml_file import read_toml

FLEET = FleetSettings(devices=4, fleet="microcontroller,phone")


def test_a_declared_budget_is_taken_as_it_is() -> None:
    node = {"device-name": "kitchen", "profile": "pi", "max-macs": "30M", "max-params": 500_000, "max-memory": "512KB"}
    identity = identify(node, FLEET)
    assert (identity.name, identity.profile, identity.partition) == ("kitchen", "pi", 0)
    assert identity.budget == DeviceBudget(30_000_000, 500_000, 512_000)


def test_one_declared_bound_is_enough() -> None:
    identity = identify({"partition-id": 2, "max-macs": "1.5M"}, FLEET)
    assert (identity.name, identity.profile, identity.partition) == ("device-02", "declared", 2)
    assert identity.budget == DeviceBudget(macs=1_500_000)


def test_a_simulated_node_is_a_device_of_the_virtual_fleet() -> None:
    for partition, device in enumerate(virtual_fleet(FLEET)):
        identity = identify({"partition-id": partition, "num-partitions": 4}, FLEET)
        assert (identity.name, identity.profile, identity.budget) == (device.name, device.profile, device.budget)
        assert identity.partition == partition


def test_a_fleet_file_is_read_once_for_all_devices_of_a_process_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reads = tmp_path / "fleet.toml", []

    def counting(path: Path, what: str) -> dict[str, Any]:
        reads.append(path)
        return read_toml(path, what)

    monkeypatch.setattr("common.fleet.read_toml", counting)
    file.write_text("[[device]]\ncount = 9\nmacs = 5000\n")
    settings = FleetSettings(devices=9, fleet=str(file))
    budgets = [identify({"partition-id": partition}, settings).budget for partition in range(9)]
    assert budgets == [DeviceBudget(macs=5000)] * 9
    assert reads == [file]
    file.write_text("[[device]]\ncount = 9\nmacs = 70000\n")
    assert identify({"partition-id": 0}, settings).budget == DeviceBudget(macs=70_000)


def test_a_named_node_without_a_budget_is_measured() -> None:
    measured = PROFILES["single-board"]
    identity = identify({"partition-id": 1, "device-name": "shed"}, FLEET, measured=lambda: measured)
    assert (identity.name, identity.profile, identity.partition) == ("shed", "measured", 1)
    assert identity.budget == measured.budget(20.0)


def test_a_declared_latency_is_judged_by_the_profiles_rates_or_by_measured_ones() -> None:
    phone, measured = PROFILES["phone"], PROFILES["single-board"]
    declared = {"device-name": "shed", "max-latency-ms": 2.5}
    known = identify({**declared, "profile": "phone"}, FLEET, measured=lambda: pytest.fail("nothing to measure"))
    assert known.budget == DeviceBudget(latency=LatencyBound.by(phone.rates, 2.5))
    unknown = identify({**declared, "profile": "toaster"}, FLEET, measured=lambda: measured)
    assert unknown.budget == DeviceBudget(latency=LatencyBound.by(measured.rates, 2.5))
    with pytest.raises(BudgetError, match="max-latency-ms must be a positive number of milliseconds"):
        identify({**declared, "max-latency-ms": "soon"}, FLEET, measured=lambda: measured)


def test_memory_for_training_is_that_of_the_runs_batch_size() -> None:
    training = LocalTraining(batch_size=32, kept=0)
    budget = identify({"max-training-memory": "2MB"}, FLEET, training).budget
    assert (budget.training_memory_bytes, budget.training) == (2_000_000, training)


def test_the_bounds_of_the_run_tighten_every_budget() -> None:
    capped = FleetSettings(devices=4, fleet="phone", max_macs="1M", max_memory="64KB")
    declared = identify({"max-macs": "30M", "max-memory": "32KB"}, capped).budget
    assert declared == DeviceBudget(macs=1_000_000, peak_memory_bytes=32_000)
    assert identify({"partition-id": 0}, capped).budget.macs == 1_000_000


@pytest.mark.parametrize("partition", [-1, 4, "four"])
def test_a_partition_that_does_not_exist_is_refused(partition: int | str) -> None:
    with pytest.raises(ConfigurationError, match=r"partition-id (is|must be)"):
        identify({"partition-id": partition}, FLEET)


@pytest.mark.parametrize("text", ["lots", "-3", "0", "1e30", "nan"])
def test_a_bound_that_cannot_be_read_is_named(text: str) -> None:
    with pytest.raises(BudgetError, match="max-macs"):
        identify({"max-macs": text}, FLEET)
