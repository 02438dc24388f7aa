"""Devices that leave, return, and can afford more or less in the course of a run: only they are reassigned."""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.app import app as real_client_app
from common.budget import DeviceBudget
from common.config import Config
from common.errors import BudgetError, CheckpointError
from common.handshake import HANDSHAKE, DeviceReport
from common.progress import Silent
from server.federation import federate
from server.run_folder import RunFolder
from simulation.grid import InlineGrid
from tests.server.helpers import CountingGrid

FLEET = """
[[device]]
name = "large"
params = "12k"
[[device]]
name = "middle"
params = "9k"
[[device]]
name = "small"
params = "6k"
"""
ORDER = ("large", "middle", "small")


class Reports:
    """A client app whose device `name` reports the budget `budgets[name, n]` from the n-th time on that it is asked."""

    def __init__(self, budgets: dict[tuple[str, int], DeviceBudget]) -> None:
        self.asked: Counter[str] = Counter()
        self.app = ClientApp()

        @self.app.query("handshake")
        def handshake(message: Message, context: Context) -> Message:
            report = DeviceReport.decode(real_client_app(message, context).content)
            self.asked[report.name] += 1
            times = [n for name, n in budgets if name == report.name and n <= self.asked[report.name]]
            if times:
                report = replace(report, budget=budgets[report.name, max(times)])
            return Message(report.encode(), reply_to=message)

        @self.app.train()
        def train(message: Message, context: Context) -> Message:
            return real_client_app(message, context)


class LeavingGrid(CountingGrid):
    """Device 1 is offline in the second round."""

    def get_node_ids(self) -> list[int]:
        return [one for one in super().get_node_ids() if one != 1001 or self.trains != 1]


class SlowGrid(InlineGrid):
    """What device 1 trains in the first round is there only once the second has begun."""

    trains = 0
    held = ""

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        ids = super().push_messages(messages)
        if any(message.metadata.message_type == "train" for message in messages):
            self.trains += 1
        if self.trains == 1:
            receivers = [message.metadata.dst_node_id for message in messages]
            self.held = ids[receivers.index(1001)]
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = list(message_ids)
        return [] if self.trains == 1 and self.held in wanted else super().pull_messages(wanted)


@pytest.fixture
def config(small_config: Callable[..., Config], tmp_path: Path) -> Config:
    (tmp_path / "fleet.toml").write_text(FLEET)
    fleet = str(tmp_path / "fleet.toml")
    return small_config(method="heterofl", pretraining_epochs=0, fleet=fleet, max_params="", rounds=4)


@pytest.fixture
def changed(config: Config) -> Callable[..., Config]:
    def change(**changes: Any) -> Config:
        return Config.from_mapping(
            {**config.to_mapping(), **{key.replace("_", "-"): value for key, value in changes.items()}}
        )

    return change


def where(folder: RunFolder) -> list[dict[str, str]]:
    """Which cohort each device trained in, round by round."""
    rounds: dict[int, dict[str, str]] = {}
    for event in folder.events("round"):
        rounds.setdefault(event["round"], {}).update(dict.fromkeys(event["trained"], event["cohort"]))
    return [dict(sorted(rounds[number].items())) for number in sorted(rounds)]


AT_HOME = {"large": "cohort-0", "middle": "cohort-1", "small": "cohort-2"}


def test_a_device_that_leaves_is_skipped_and_returns_to_its_place(
    config: Config, run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    summary = run_federation(config, tmp_path / "run", grid_class=LeavingGrid)
    folder = RunFolder(tmp_path / "run")
    without = {"large": "cohort-0", "small": "cohort-2"}
    assert where(folder) == [AT_HOME, without, AT_HOME, AT_HOME]
    assert folder.events("assignment") == []
    assert summary["outcomes"] == {"trained": 11, "late": 0, "failed": 0, "rejected": 0}


def test_without_handshake_every_nobody_is_asked_again(
    config: Config, run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    reports = Reports({("large", 2): DeviceBudget(params=6000)})
    run_federation(config, tmp_path / "run", client_app=reports.app)
    assert reports.asked == Counter(dict.fromkeys(ORDER, 1))
    assert where(RunFolder(tmp_path / "run")) == [AT_HOME] * 4


def test_handshake_every_says_in_which_rounds_all_are_asked(
    changed: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    reports = Reports({})
    run_federation(changed(handshake_every=2, rounds=5), tmp_path / "run", client_app=reports.app)
    assert reports.asked == Counter(dict.fromkeys(ORDER, 3))
    folder = RunFolder(tmp_path / "run")
    assert where(folder) == [AT_HOME] * 5
    assert folder.events("assignment") == []


@pytest.mark.parametrize(
    ("name", "params", "cohort"),
    [("large", 9000, "cohort-1"), ("large", 6000, "cohort-2"), ("small", 10**6, "cohort-0")],
)
def test_a_device_with_a_new_budget_moves_and_nothing_else_does(
    name: str,
    params: int,
    cohort: str,
    changed: Callable[..., Config],
    run_federation: Callable[..., Any],
    tmp_path: Path,
) -> None:
    reports = Reports({(name, 3): DeviceBudget(params=params)})
    run_federation(changed(handshake_every=1), tmp_path / "run", client_app=reports.app)
    folder = RunFolder(tmp_path / "run")
    moved = AT_HOME | {name: cohort}
    assert where(folder) == [AT_HOME, AT_HOME, moved, moved]
    (event,) = folder.events("assignment")
    assert (event["round"], event["device"], event["cohort"]) == (3, name, cohort)
    assert event["reason"] == f"moves from {AT_HOME[name]} to {cohort}: its budget is now below {params:,} parameters"
    budgets = {entry.name: (entry.budget.params, entry.cohort) for entry in folder.read_budgets()}
    assert budgets[name] == (params, cohort)
    assert {one: budgets[one][1] for one in ORDER} == moved


def test_a_device_that_can_hold_nothing_any_more_is_left_out_until_it_can(
    changed: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    budgets = {("middle", 2): DeviceBudget(params=20), ("middle", 4): DeviceBudget(params=7000)}
    reports = Reports(budgets)
    run_federation(changed(handshake_every=1), tmp_path / "run", client_app=reports.app)
    folder = RunFolder(tmp_path / "run")
    without = {"large": "cohort-0", "small": "cohort-2"}
    assert where(folder) == [AT_HOME, without, without, AT_HOME | {"middle": "cohort-2"}]
    assert [(event["round"], event["cohort"]) for event in folder.events("assignment")] == [(2, ""), (4, "cohort-2")]


def test_a_device_that_had_its_last_chance_does_not_get_another_by_answering_again(
    changed: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    class Broken(InlineGrid):
        """Node 1 answers the handshake, but not its task."""

        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            replies = super().pull_messages(message_ids)
            for reply in replies:
                if reply.metadata.src_node_id == 1001 and reply.metadata.message_type != HANDSHAKE:
                    reply.content.clear()
            return replies

    run_federation(changed(handshake_every=1, rounds=6), tmp_path / "run", grid_class=Broken)
    folder = RunFolder(tmp_path / "run")
    statuses = [event["status"] for event in folder.events("device") if event["device"] == "middle"]
    assert statuses == ["rejected"] * 3


def test_a_device_restarted_with_another_budget_while_the_server_was_down_moves(
    changed: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    run_federation(changed(rounds=1), tmp_path / "run")
    reports = Reports({("small", 1): DeviceBudget(params=12_000)})
    run_federation(changed(rounds=2), tmp_path / "run", resume=True, client_app=reports.app)
    folder = RunFolder(tmp_path / "run")
    assert where(folder) == [AT_HOME, AT_HOME | {"small": "cohort-0"}]
    assert [event["round"] for event in folder.events("assignment")] == [2]


@pytest.mark.parametrize("rounds", [1, 2], ids=["at once", "after a round"])
def test_a_device_that_is_not_back_yet_after_a_resume_keeps_its_line_in_the_budgets(
    rounds: int, changed: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    """large comes back with a smaller budget, which its line says, and with middle there is nothing to report."""
    run_federation(changed(rounds=1, handshake_every=1), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    before = {entry.name: entry for entry in folder.read_budgets()}
    reports = Reports({("large", 1): DeviceBudget(params=9500)})
    config = changed(rounds=rounds, handshake_timeout=0.5, handshake_every=1)
    summary = run_federation(config, tmp_path / "run", resume=True, grid_class=without(1), client_app=reports.app)
    after = {entry.name: entry for entry in folder.read_budgets()}
    assert list(after) == ["large", "middle", "small"]
    assert after["middle"] == before["middle"]
    assert (after["large"].budget, after["large"].cohort) == (DeviceBudget(params=9500), "cohort-1")
    assert {name: one["profile"] for name, one in summary["devices"].items()} == {
        name: entry.profile for name, entry in after.items()
    }


class CutShort(Silent):
    """Progress that ends the process, so to speak, in a search or pretraining of which there is a checkpoint."""

    def __init__(self, place: Path) -> None:
        self.checkpoints = place / "checkpoint"

    def advance(self, stage: str, units: int, message: str) -> None:
        if stage in ("search", "train") and any(self.checkpoints.glob("*.safetensors")):
            raise KeyboardInterrupt


def without(partition: int) -> type[InlineGrid]:
    """A grid in which this device is offline."""

    class Without(InlineGrid):
        def get_node_ids(self) -> list[int]:
            return [one for one in super().get_node_ids() if one != 1000 + partition]

    return Without


@pytest.fixture
def prepared(small_config: Callable[..., Config], config: Config) -> Callable[[str], Config]:
    """A config of a method that works before the first round, for the same devices."""

    def make(method: str) -> Config:
        more = {} if method == "dac" else {"pretraining_epochs": 3}
        fleet = config.fleet.fleet
        return small_config(method=method, fleet=fleet, max_params="", rounds=2, handshake_timeout=0.5, **more)

    return make


@pytest.mark.parametrize(("method", "cohort"), [("dac", "cohort-1"), ("heterofl", "cohort-1"), ("fedavg", "cohort-0")])
def test_a_search_that_was_cut_short_ends_for_its_own_devices_and_serves_those_that_are_there_then(
    method: str, cohort: str, prepared: Callable[[str], Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    """It began for large and middle; then middle is gone, small is new, and large can afford hardly more than it."""
    whole, place, config = tmp_path / "whole", tmp_path / "run", prepared(method)
    run_federation(config, whole, grid_class=without(2))
    with pytest.raises(KeyboardInterrupt):
        run_federation(config, place, progress=CutShort(place), grid_class=without(2))
    budgets = {("small", 1): DeviceBudget(params=9500), ("large", 1): DeviceBudget(params=10_000)}
    for again in (True, False):  # cut short once more: for whom it began is not forgotten
        how = {"resume": True, "client_app": Reports(budgets).app, "grid_class": without(1)}
        with pytest.raises(KeyboardInterrupt) if again else nullcontext():
            run_federation(config, place, progress=CutShort(place) if again else None, **how)
    found = {file.name: file.read_bytes() for file in (whole / "architectures").iterdir()}
    assert {file.name: file.read_bytes() for file in (place / "architectures").iterdir()} == found
    folder = RunFolder(place)
    for event in ("search", "pretraining"):
        assert folder.events(event) == RunFolder(whole).events(event)
    assert where(folder) == [{"large": cohort, "small": cohort}] * 2
    assert [(entry.name, entry.cohort) for entry in folder.read_budgets()] == [
        *(("large", cohort), ("middle", cohort), ("small", cohort))  # middle is in a cohort, and may come back
    ]


def test_an_unfinished_search_is_not_resumed_with_other_settings(
    prepared: Callable[[str], Config],
    run_inline: Callable[..., Any],
    run_federation: Callable[..., Any],
    tmp_path: Path,
) -> None:
    config, place = prepared("dac"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_federation(config, place, progress=CutShort(place))
    other = config.changed({"max-params": "7k"})
    with (
        RunFolder.open(place) as folder,
        pytest.raises(CheckpointError, match=r"of a run with max-params = '', not '7k': resume it with its own"),
    ):
        run_inline(lambda grid: federate(grid, other, folder, Silent(), True), other)
    assert folder.read_config()["max-params"] == ""


def test_a_run_that_no_device_could_take_part_in_goes_on_with_those_that_can(
    prepared: Callable[[str], Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    config, place = prepared("dac"), tmp_path / "run"
    reports = Reports(dict.fromkeys(((name, 1) for name in ORDER), DeviceBudget(params=20)))
    with pytest.raises(BudgetError, match="the smallest mlp"):
        run_federation(config, place, client_app=reports.app)
    summary = run_federation(config, place, resume=True)
    assert [cohort["devices"] for cohort in summary["cohorts"]] == [1, 1, 1]


def test_the_oracle_keeps_a_device_whatever_it_can_afford(
    changed: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    reports = Reports({("large", 2): DeviceBudget(params=20)})
    search = {"warmup_epochs": 15, "epochs_per_step": 2, "fine_tune_epochs": 3}  # the defaults: fedavg reads none
    config = changed(method="fedavg", fedavg_model="largest", handshake_every=1, rounds=3, **search)
    run_federation(config, tmp_path / "run", client_app=reports.app)
    folder = RunFolder(tmp_path / "run")
    assert where(folder) == [dict.fromkeys(ORDER, "cohort-0")] * 3
    assert folder.events("assignment") == []


def test_a_late_reply_is_dropped_and_counted(
    changed: Callable[..., Config], run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    summary = run_federation(changed(rounds=2, round_timeout=4.0), tmp_path / "run", grid_class=SlowGrid)
    folder = RunFolder(tmp_path / "run")
    assert where(folder) == [{"large": "cohort-0", "small": "cohort-2"}, AT_HOME]
    (late,) = [event for event in folder.events("device") if event["status"] == "late"]
    assert (late["round"], late["device"]) == (1, "middle")
    assert summary["outcomes"] == {"trained": 5, "late": 1, "failed": 0, "rejected": 0}
