"""From budgets to cohorts: merging loses little and never breaks a budget."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.config import Config
from common.errors import BudgetError
from common.fleet import PROFILES
from common.handshake import DeviceReport
from common.models.description import BaseNetwork
from common.rates import LatencyBound
from dac.files import Member
from server.assignment import assign, best_fitting, merge_budgets
from server.cohorts import Cohort
from server.devices import Device
from server.methods.slices import smallest_costs
from tests.altered_client import altered_client
from tests.server.helpers import Notes, architecture_of, slow_in

FULL = Costs(macs=1000, params=1000, peak_memory_bytes=1000)
FLOOR = Costs(macs=0, params=0, peak_memory_bytes=0)
BASE = BaseNetwork("mlp", (1, 8, 8), 10)
SMALLEST = smallest_costs(BASE)


def macs(bound: int) -> DeviceBudget:
    return DeviceBudget(macs=bound)


def member(channels: int, accuracy: float = 0.5, seed: int = 0) -> Member:
    architecture = Architecture.with_kept(BASE, {"hidden": range(channels)})
    budget = DeviceBudget(macs=architecture.costs.macs + 1)
    return Member(architecture, budget, dict(architecture.build(seed).state_dict()), accuracy)


def device(number: int, budget: DeviceBudget) -> Device:
    return Device(100 - number, DeviceReport(f"device-{number:02d}", "phone", number, 10, budget))


def test_without_a_limit_budgets_stay_as_they_are() -> None:
    merged = merge_budgets([macs(100), macs(101), macs(100)], 0, FULL, FLOOR)
    assert [budget.macs for budget in merged] == [100, 101, 100]


def test_the_nearest_pair_is_merged_to_the_smaller_bound() -> None:
    merged = merge_budgets([macs(100), macs(400), macs(500), macs(20)], 3, FULL, FLOOR)
    assert [budget.macs for budget in merged] == [100, 400, 400, 20]


def test_a_large_group_is_not_given_up_for_a_single_device() -> None:
    # Lowering the three devices at 200 to 110 loses 3 log(200/110) = 1.79; lowering one from 500 to 200 only 0.92.
    merged = merge_budgets([macs(110), macs(200), macs(200), macs(200), macs(500)], 2, FULL, FLOOR)
    assert [budget.macs for budget in merged] == [110, 200, 200, 200, 200]


def in_time(milliseconds: float, profile: str = "phone") -> DeviceBudget:
    return DeviceBudget(latency=LatencyBound.by(PROFILES[profile].rates, milliseconds))


def test_budgets_of_time_are_merged_by_what_they_leave_of_the_whole_network() -> None:
    full = Architecture.full(BASE).costs
    whole = 1000 * PROFILES["phone"].rates.seconds_for(full.work())
    merged = merge_budgets([in_time(0.1 * whole), in_time(0.4 * whole), in_time(0.5 * whole)], 2, full, SMALLEST)
    assert [one.latency for one in merged] == [in_time(share * whole).latency for share in (0.1, 0.4, 0.4)]
    one, other = merge_budgets([in_time(2 * whole), DeviceBudget()], 0, full, SMALLEST)
    assert one == other


def test_devices_of_different_speeds_share_an_architecture_that_is_fast_enough_on_each() -> None:
    full = Architecture.full(BASE).costs
    seconds = {name: PROFILES[name].rates.seconds_for(full.work()) for name in ("phone", "microcontroller")}
    budgets = [in_time(700 * seconds["phone"]), in_time(500 * seconds["microcontroller"], "microcontroller")]
    (one, other) = merge_budgets(budgets, 1, full, SMALLEST)
    assert one == other
    assert all(one.within(budget) for budget in budgets)


@pytest.mark.parametrize("method", ["dac", "heterofl"])
def test_devices_that_no_network_fits_together_stay_apart_whatever_max_cohorts_says(
    method: str,
    small_config: Callable[..., Config],
    run_federation: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """The smallest network takes 0.6 of one's time for linear layers and 0.7 of the other's for all the rest."""
    slow = [slow_in(kind, share, SMALLEST) for kind, share in (("linear", 0.6), ("other", 0.7), ("other", 0.75))]
    app, notes = app_of(slow), Notes()
    config = small_config(method=method, max_cohorts=1, max_params="", rounds=1)
    summary = run_federation(config, tmp_path / "run", progress=notes, client_app=app)
    assert [cohort["devices"] for cohort in summary["cohorts"]] == [1, 2]
    assert summary["outcomes"]["trained"] == 3
    (note,) = (line for line in notes.lines if "max-cohorts" in line)
    assert note.startswith("2 budgets are left to serve, though max-cohorts is 1: no network fits any two")


def app_of(budgets: Sequence[DeviceBudget]) -> ClientApp:
    """The real client, except that the device of partition i reports `budgets[i]`."""

    def report(request: Message, reply: Message, context: Context) -> Message:
        own = budgets[int(context.node_config["partition-id"])]
        return Message(replace(DeviceReport.decode(reply.content), budget=own).encode(), reply_to=request)

    return altered_client(at_handshake=report)


def test_different_resources_are_both_tightened() -> None:
    merged = merge_budgets([DeviceBudget(macs=100, params=900), DeviceBudget(macs=200, params=300)], 1, FULL, FLOOR)
    assert {(budget.macs, budget.params) for budget in merged} == {(100, 300)}


def test_bounds_that_cannot_bind_make_no_group_of_their_own() -> None:
    merged = merge_budgets([macs(5000), macs(9000), DeviceBudget()], 0, FULL, FLOOR)
    assert len(set(merged)) == 1


bounds = st.one_of(st.none(), st.integers(1, 3000))
budget_lists = st.lists(st.builds(DeviceBudget, bounds, bounds, bounds), min_size=1, max_size=8)


@given(budget_lists, st.integers(0, 8))
def test_merging_respects_every_budget_and_the_limit(budgets: list[DeviceBudget], limit: int) -> None:
    merged = merge_budgets(budgets, limit, FULL, FLOOR)
    assert all(after.within(before) for before, after in zip(budgets, merged, strict=True))
    assert limit == 0 or len(set(merged)) <= limit


def test_cohorts_are_named_from_the_largest_architecture_down() -> None:
    devices = [device(number, DeviceBudget()) for number in range(3)]
    cohorts = assign(devices, [member(16), member(64), member(16)])
    assert [(cohort.name, architecture_of(cohort).sizes["hidden"], cohort.devices) for cohort in cohorts] == [
        ("cohort-0", 64, ["device-01"]),
        ("cohort-1", 16, ["device-00", "device-02"]),
    ]


def test_equal_architectures_form_one_cohort_with_the_more_accurate_weights() -> None:
    better = member(32, accuracy=0.7, seed=2)
    (cohort,) = assign([device(0, macs(10**6)), device(1, macs(10**7))], [member(32, accuracy=0.6, seed=1), better])
    assert cohort.devices == ["device-00", "device-01"]
    assert cohort.search_accuracy == 0.7
    assert cohort.weights[:64].tolist() == better.state["hidden.weight"].flatten()[:64].tolist()


def test_an_architecture_that_does_not_fit_its_device_is_refused() -> None:
    with pytest.raises(BudgetError, match="device-00"):
        assign([device(0, macs(10))], [member(8)])


def test_a_late_device_joins_the_largest_architecture_it_can_hold() -> None:
    cohorts = [
        Cohort(f"cohort-{number}", one.architecture, one.state["hidden.weight"].numpy(), 0.5, [])
        for number, one in enumerate((member(100), member(50), member(20)))
    ]
    costs = [cohort.network.costs for cohort in cohorts]
    chosen = best_fitting(macs(costs[0].macs), cohorts)
    assert chosen is cohorts[1]
    assert best_fitting(DeviceBudget(), cohorts) is cohorts[0]
    assert best_fitting(macs(costs[2].macs), cohorts) is None
