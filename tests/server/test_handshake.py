"""The handshake: who is taken in, in which order, and what is said about the others."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from common.budget import USUAL_TRAINING, DeviceBudget, LocalTraining
from common.config import Config
from common.errors import FederationError
from common.handshake import DeviceReport, Hello
from common.progress import Silent
from server.devices import Device, without_duplicates
from server.handshake import Greeter, handshake
from simulation.grid import InlineGrid
from tests.server.helpers import Notes


class DeafGrid(InlineGrid):
    """Partition 1 never answers."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [reply for reply in super().pull_messages(message_ids) if reply.metadata.src_node_id != 1001]


class SilentGrid(InlineGrid):
    """Nobody ever answers."""

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return []


class LateGrid(InlineGrid):
    """The last device comes online only when `everyone` is set."""

    everyone = False

    def get_node_ids(self) -> list[int]:
        return super().get_node_ids() if self.everyone else super().get_node_ids()[:-1]


REPORT = DeviceReport("device", "phone", 0, 10, DeviceBudget(macs=100))


def app_of(answer: Callable[[int], Any]) -> ClientApp:
    """A client app whose device of partition i reports `answer(i)`: a report, a record dict or an exception."""
    app = ClientApp()

    @app.query("handshake")
    def report(message: Message, context: Context) -> Message:
        Hello.decode(message.content).require_match(Hello.mine())
        result = answer(int(context.node_config["partition-id"]))
        if isinstance(result, Exception):
            raise result
        return Message(result.encode() if isinstance(result, DeviceReport) else result, reply_to=message)

    return app


def named(partition: int) -> DeviceReport:
    return replace(REPORT, name=f"device-{9 - partition}", partition=partition)


@pytest.fixture
def greet(run_inline: Callable[..., Any], small_config: Callable[..., Config]) -> Callable[..., Any]:
    """(devices, notes) of a handshake with three devices."""

    def run(answer: Callable[[int], Any], timeout: float = 5.0, grid_class: type = InlineGrid) -> Any:
        notes = Notes()

        def server(grid: InlineGrid) -> list[Device]:
            return handshake(Greeter(grid, timeout, notes), 3, timeout, notes)

        return run_inline(server, small_config(), app_of(answer), grid_class), notes.lines

    return run


def test_devices_come_in_the_order_of_their_partitions(greet: Callable[..., Any]) -> None:
    devices, notes = greet(named)
    assert [device.name for device in devices] == ["device-9", "device-8", "device-7"]
    assert [device.budget for device in devices] == [DeviceBudget(macs=100)] * 3
    assert notes == []


def test_the_real_client_reports_its_place_in_the_virtual_fleet(
    run_inline: Callable[..., Any], small_config: Callable[..., Config]
) -> None:
    def server(grid: InlineGrid) -> list[Device]:
        return handshake(Greeter(grid, 5, Silent()), 3, 5, Silent())

    fleet = {"fleet": "microcontroller,phone", "max_params": "", "reference_fraction": 0.2}
    devices = run_inline(server, small_config(**fleet, device_evaluation=False))
    profiles = ["microcontroller", "phone", "microcontroller"]
    assert [device.report.profile for device in devices] == profiles
    # digits: 1438 training images, of which a fifth is the server's reference set
    assert sum(device.report.samples for device in devices) == 1438 - 288


def bad_report(**values: Any) -> RecordDict:
    record = dict(REPORT.encode()["report"].items())
    return RecordDict({"report": ConfigRecord({**record, **values})})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (ValueError("out of battery"), "out of battery"),
        (bad_report(name="../../etc/passwd"), "name"),
        (bad_report(name="a" * 10_000), "name"),
        (bad_report(name="a\x00b"), "name"),
        (bad_report(name=""), "name"),
        (bad_report(name="d\u0435vice"), "name"),
        (bad_report(samples=0), "0 training images"),
        (bad_report(samples=2.5), "samples must be a whole number"),
        (bad_report(partition=-1), "partition"),
        (bad_report(macs=-1), "macs"),
        (bad_report(macs=1e30), "macs must be a whole number"),
        (bad_report(macs="many"), "macs must be a whole number"),
        (bad_report(schema=99), "schema 99"),
        (RecordDict(), "'report' record"),
    ],
)
def test_a_bad_report_costs_its_device_alone(bad: Any, reason: str, greet: Callable[..., Any]) -> None:
    devices, notes = greet(lambda partition: bad if partition == 1 else named(partition))
    assert [device.report.partition for device in devices] == [0, 2]
    (note,) = notes
    assert "node 1001 is left out" in note
    assert reason in note


@pytest.mark.parametrize("other", [LocalTraining(2**30, 1), LocalTraining(16, 3)])
def test_memory_for_training_in_another_way_than_the_run_asks_for_costs_its_device_alone(
    other: LocalTraining, greet: Callable[..., Any]
) -> None:
    """Merged with others, such a bound would hold nothing, though it is met by itself."""

    def report(partition: int) -> DeviceReport:
        training = other if partition == 1 else USUAL_TRAINING
        return replace(named(partition), budget=DeviceBudget(training_memory_bytes=2**61, training=training))

    devices, notes = greet(report)
    assert [device.report.partition for device in devices] == [0, 2]
    assert notes == [
        f"node 1001 is left out: device-8 bounds its memory for other training than the run's: {other.batch_size} "
        f"images at once and {other.kept} values kept of each parameter, not 16 and 1"
    ]


def test_of_two_devices_of_one_name_the_lower_partition_takes_part(greet: Callable[..., Any]) -> None:
    devices, notes = greet(lambda partition: replace(REPORT, name="a" if partition else "b", partition=partition))
    assert [(device.name, device.report.partition) for device in devices] == [("b", 0), ("a", 1)]
    assert notes == ["a second device called a (partition 2) is left out"]


def test_the_choice_between_equal_names_does_not_depend_on_who_answers_first(
    make_device: Callable[..., Device],
) -> None:
    few, many = make_device(samples=5, node_id=1), make_device(samples=9, node_id=2)
    assert without_duplicates([few, many]) == without_duplicates([many, few]) == ([few], [many])


def test_it_goes_on_without_a_device_that_does_not_answer(greet: Callable[..., Any]) -> None:
    devices, notes = greet(named, timeout=0.3, grid_class=DeafGrid)
    assert [device.report.partition for device in devices] == [0, 2]
    assert notes == ["1 of 3 devices did not report within 0.3 s; going on without them"]


def test_when_every_device_refuses_the_run_ends_and_says_why_and_nothing_of_a_wait(greet: Callable[..., Any]) -> None:
    with pytest.raises(FederationError, match=r"^no device can take part: .*flat battery"):
        greet(lambda partition: ValueError("flat battery"), timeout=0.3)


def test_without_any_device_the_run_ends_and_says_how_long_it_waited(greet: Callable[..., Any]) -> None:
    with pytest.raises(FederationError, match=r"^no device reported within 0\.3 s: start at least one"):
        greet(named, timeout=0.3, grid_class=SilentGrid)


def test_a_node_that_comes_later_is_greeted_and_no_one_waits_for_it(
    run_inline: Callable[..., Any], small_config: Callable[..., Config]
) -> None:
    def server(grid: LateGrid) -> list[list[str]]:
        greeter = Greeter(grid, 5, Silent())
        seen = [[device.name for device in handshake(greeter, 2, 5, Silent())]]
        for everyone in (False, True, True):
            grid.everyone = everyone
            greeter.greet()
            seen.append([device.name for device in greeter.collect()])
        greeter.forget(1002)
        greeter.greet()
        seen.append([device.name for device in greeter.collect()])
        return seen

    seen = run_inline(server, small_config(), app_of(named), LateGrid)
    assert seen == [["device-9", "device-8"], [], ["device-7"], [], ["device-7"]]
