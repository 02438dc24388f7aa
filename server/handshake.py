"""The handshake: ask every node who it is and what it can afford."""

import time
from collections.abc import Sequence

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from common.budget import USUAL_TRAINING, LocalTraining
from common.errors import FederationError, MessageError
from common.handshake import HANDSHAKE, DeviceReport, Hello
from common.progress import Progress
from server.admission import one_line, require_content
from server.devices import Device, without_duplicates
from server.exchange import pause_after, pull

UNREACHABLE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)

LONGEST_PAUSE_SECONDS = 1.0


class Greeter:
    """Asks each node once and collects the answers as they come, so that no round waits for a newcomer.

    A node that could not be reached, or that `forget` names, is asked again; `forget_all` has every node asked again.
    `training` is how the run has devices train; one that bounds its memory for another training is left out.
    `class_names` are those of the run.
    """

    def __init__(
        self,
        grid: Grid,
        timeout: float,
        progress: Progress,
        training: LocalTraining = USUAL_TRAINING,
        class_names: Sequence[str] = (),
    ) -> None:
        self._grid = grid
        self._timeout = timeout
        self._progress = progress
        self._training = training
        self._hello = Hello.mine(class_names)
        self._asked: set[int] = set()
        self._pending: dict[str, Message] = {}
        self.first_refusal = ""

    @property
    def waiting(self) -> int:
        """How many nodes were asked and have not answered."""
        return len(self._pending)

    @property
    def answered(self) -> int:
        """How many nodes have answered, well or not."""
        return len(self._asked) - len(self._pending)

    def online(self) -> set[int]:
        """The nodes that can be reached now."""
        return set(self._grid.get_node_ids())

    def greet(self) -> None:
        """Ask every node that has not been asked yet."""
        new = sorted(self.online() - self._asked)
        if not new:
            return
        messages = [
            Message(self._hello.encode(), node_id, HANDSHAKE, ttl=self._timeout, group_id="handshake")
            for node_id in new
        ]
        pushed = set(self._grid.push_messages(messages))
        for node_id, message in zip(new, messages, strict=True):
            if message.metadata.message_id in pushed:
                self._asked.add(node_id)
                self._pending[message.metadata.message_id] = message

    def collect(self) -> list[Device]:
        """The devices whose report has arrived since the last call; a bad report is noted and its node left out."""
        devices = []
        for reply in pull(self._grid, self._pending):
            node_id = self._pending.pop(reply.metadata.reply_to_message_id).metadata.dst_node_id
            if reply.has_error() and reply.error.code in UNREACHABLE:
                self.forget(node_id)
                continue
            try:
                report = _report(reply)
                report.require_training(self._training)
                devices.append(Device(node_id, report))
            except MessageError as error:
                self._refuse(f"node {node_id} is left out: {one_line(str(error))}")
        return devices

    def forget(self, node_id: int) -> None:
        """Ask this node again at the next opportunity."""
        self._asked.discard(node_id)

    def forget_all(self) -> None:
        """Ask every node again at the next opportunity, but those that still owe an answer."""
        self._asked = {message.metadata.dst_node_id for message in self._pending.values()}

    def _refuse(self, reason: str) -> None:
        self.first_refusal = self.first_refusal or reason
        self._progress.note(reason)


def handshake(greeter: Greeter, expected: int, timeout: float, progress: Progress) -> list[Device]:
    """The devices that reported, in canonical order.

    Waits until `expected` nodes have answered and no other one is being waited for, or `timeout` seconds are over; then
    goes on with those that answered well. A second device of a name is left out. Raises FederationError if none did.
    """
    progress.start("handshake", expected)
    deadline = time.monotonic() + timeout
    arrived: list[Device] = []
    while True:
        start = time.monotonic()
        greeter.greet()
        for device in greeter.collect():
            arrived.append(device)
            progress.advance("handshake", 1, f"{device.name}: {device.budget}")
        if (greeter.answered >= expected and not greeter.waiting) or time.monotonic() >= deadline:
            break
        pause_after(start, LONGEST_PAUSE_SECONDS)
    devices, refused = without_duplicates(arrived)
    if not devices:
        if greeter.first_refusal:
            raise FederationError(f"no device can take part: {greeter.first_refusal}")
        raise FederationError(
            f"no device reported within {timeout:g} s: start at least one, or raise handshake-timeout"
        )
    missing = expected - greeter.answered
    if missing > 0:
        progress.note(f"{missing} of {expected} devices did not report within {timeout:g} s; going on without them")
    for device in refused:
        progress.note(f"a second device called {device.name} (partition {device.report.partition}) is left out")
        greeter.forget(device.node_id)
    progress.finish("handshake", f"{len(devices)} devices reported")
    return devices


def _report(reply: Message) -> DeviceReport:
    require_content(reply, 0)
    return DeviceReport.decode(reply.content)
