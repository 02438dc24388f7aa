"""Devices that come late, or come back under another node id."""

from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import Error, Message

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.models.description import BaseNetwork
from common.progress import Silent
from server.cohorts import Cohort, FederationState
from server.devices import Device
from server.federation import federate
from server.membership import place, sort_devices
from server.methods.averaged import Averaged
from server.run_folder import RunFolder
from simulation.grid import InlineGrid


def cohort(number: int, channels: int, devices: list[str]) -> Cohort:
    architecture = Architecture.with_kept(BaseNetwork("mlp", (1, 8, 8), 10), {"hidden": range(channels)})
    weights = architecture.layout.flatten(architecture.build(0).state_dict())
    return Cohort(f"cohort-{number}", architecture, weights, 0.5, devices)


class GrowingGrid(InlineGrid):
    """Device 2 comes online in the course of the run, after its nodes were listed often enough."""

    listed = 0

    def get_node_ids(self) -> list[int]:
        self.listed += 1
        return super().get_node_ids() if self.listed > 60 else super().get_node_ids()[:-1]


class RestartingGrid(InlineGrid):
    """The node of device 0 is replaced by one with another id before the second round."""

    rounds = 0

    def push_messages(self, messages: Any) -> list[str]:
        ids = super().push_messages(messages)
        if any(message.metadata.message_type == "train" for message in messages):
            self.rounds += 1
        return ids

    def get_node_ids(self) -> list[int]:
        if self.rounds == 1 and 1000 in self._node_configs and not self._pending:
            self._node_configs[2000] = self._node_configs.pop(1000)
        return super().get_node_ids()


@pytest.fixture
def method(make_method: Callable[..., Averaged]) -> Averaged:
    """Architectures of 64 and 16 channels."""
    return make_method([cohort(0, 64, ["device-00"]), cohort(1, 16, ["device-01"])])


@pytest.fixture
def state(method: Averaged) -> FederationState:
    """Budgets that the architectures just fit."""
    large, small = map(just_above, method.cohorts)
    return FederationState(budgets={"device-00": large, "device-01": small})


def just_above(cohort: Cohort) -> DeviceBudget:
    return DeviceBudget(macs=cohort.network.costs.macs + 1)


def test_a_stranger_joins_the_largest_architecture_it_can_hold(
    method: Averaged, state: FederationState, make_device: Callable[..., Device]
) -> None:
    bound = method.cohorts[0].network.costs.macs
    assert place(make_device("tight", macs=bound), method, state) == "joins cohort-1"
    assert place(make_device("rich", macs=bound + 1), method, state) == "joins cohort-0"
    assert [c.devices for c in method.cohorts] == [["device-00", "rich"], ["device-01", "tight"]]


def test_a_stranger_that_can_hold_nothing_stays_out_and_hears_it_once(
    method: Averaged, state: FederationState, make_device: Callable[..., Device]
) -> None:
    assert place(make_device("poor", macs=10), method, state) == (
        "is left out: its budget below 10 MACs admits none of the architectures"
    )
    assert place(make_device("poor", macs=10), method, state) == ""
    assert [c.devices for c in method.cohorts] == [["device-00"], ["device-01"]]


def test_a_device_whose_budget_is_unchanged_stays_although_another_would_fit(
    method: Averaged, state: FederationState, make_device: Callable[..., Device]
) -> None:
    state.budgets["device-01"] = DeviceBudget(macs=10**9)
    assert place(make_device("device-01", macs=10**9), method, state) == ""
    assert [c.devices for c in method.cohorts] == [["device-00"], ["device-01"]]


def test_a_device_with_a_new_budget_moves_to_the_best_fitting_architecture(
    method: Averaged, state: FederationState, make_device: Callable[..., Device]
) -> None:
    bound = method.cohorts[0].network.costs.macs
    assert place(make_device("device-00", macs=bound), method, state).startswith(
        "moves from cohort-0 to cohort-1: its budget"
    )
    assert [c.devices for c in method.cohorts] == [[], ["device-01", "device-00"]]
    assert place(make_device("device-01", macs=bound + 1), method, state).startswith("moves from cohort-1 to cohort-0")
    assert [c.devices for c in method.cohorts] == [["device-01"], ["device-00"]]
    assert place(make_device("device-00", macs=bound - 1), method, state) == ""
    assert place(make_device("device-00", macs=1), method, state).startswith("is left out")
    assert [c.devices for c in method.cohorts] == [["device-01"], []]


def test_an_oracle_takes_and_keeps_every_device(
    make_method: Callable[..., Averaged], small_config: Callable[..., Config], make_device: Callable[..., Device]
) -> None:
    oracle = make_method([cohort(0, 64, ["device-00"])], small_config(method="fedavg", fedavg_model="largest"))
    state = FederationState(budgets={"device-00": DeviceBudget()})
    assert place(make_device("poor", macs=1), oracle, state) == "joins cohort-0"
    assert place(make_device("device-00", macs=1), oracle, state) == ""
    assert oracle.cohorts[0].devices == ["device-00", "poor"]


def test_devices_of_a_cohort_are_in_the_order_of_their_partitions(
    method: Averaged, make_device: Callable[..., Device]
) -> None:
    method.cohorts[0].devices = ["gone", "b", "a"]
    sort_devices(method, [make_device("a", partition=4), make_device("b", partition=2)])
    assert method.cohorts[0].devices == ["b", "a", "gone"]


def test_a_late_device_takes_part_in_the_rounds_after_it_came(
    run_inline: Callable[..., Any], small_config: Callable[..., Config], run_folder: RunFolder
) -> None:
    config = small_config(rounds=40, handshake_timeout=0.5, evaluate_every=40)
    run_inline(lambda grid: federate(grid, config, run_folder, Silent(), False), config, grid_class=GrowingGrid)
    rounds = run_folder.events("round")
    assert rounds[0]["trained"] == ["device-00", "device-01"]
    assert rounds[-1]["trained"] == ["device-00", "device-01", "device-02"]
    assert [entry.name for entry in run_folder.read_budgets()] == rounds[-1]["trained"]


def test_a_restarted_node_is_the_same_device(
    run_inline: Callable[..., Any], small_config: Callable[..., Config], run_folder: RunFolder
) -> None:
    config = small_config(rounds=3)
    run_inline(lambda grid: federate(grid, config, run_folder, Silent(), False), config, grid_class=RestartingGrid)
    everyone = ["device-00", "device-01", "device-02"]
    assert [event["trained"] for event in run_folder.events("round")] == [everyone] * 3


def test_a_device_that_was_left_out_is_asked_again_once_it_is_restarted(
    run_inline: Callable[..., Any], small_config: Callable[..., Config], run_folder: RunFolder
) -> None:
    class MendedGrid(RestartingGrid):
        """The node of device 0 cannot train; the one that replaces it can."""

        def pull_messages(self, message_ids: Any) -> list[Message]:
            replies = super().pull_messages(message_ids)
            return [
                Message(Error(2, "broken"), reply_to=self._asked[reply.metadata.reply_to_message_id])
                if reply.metadata.src_node_id == 1000 and "arrays" in reply.content
                else reply
                for reply in replies
            ]

        def push_messages(self, messages: Any) -> list[str]:
            ids = super().push_messages(messages)
            self._asked = {**getattr(self, "_asked", {}), **dict(zip(ids, messages, strict=True))}
            self.rounds = max(0, len(run_folder.events("round")) - 3)
            return ids

    config = small_config(rounds=7)
    run_inline(lambda grid: federate(grid, config, run_folder, Silent(), False), config, grid_class=MendedGrid)
    asked = ["device-00" in event["sampled"] for event in run_folder.events("round")]
    trained = ["device-00" in event["trained"] for event in run_folder.events("round")]
    assert asked[:4] == [True, True, True, False]
    assert trained[:4] == [False] * 4
    assert trained[-1]
