"""What the grids of all engines share: the devices, each with its context, and who waits for which reply."""

import itertools
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from common.settings import Scalar

_FIRST_NODE_ID = 1000
_POLL_SECONDS = 0.02


class LocalGrid(Grid):
    """A grid of virtual devices, one per entry of `node_configs`, which keep their state from message to message.

    A message must not be changed between push and reply.
    """

    def __init__(
        self, node_configs: Sequence[Mapping[str, Scalar]], run_config: Mapping[str, Scalar], run: Run
    ) -> None:
        self._run = run
        self._run_config = run_config
        self._node_configs = dict(enumerate(node_configs, start=_FIRST_NODE_ID))
        self._states: dict[int, RecordDict] = {}
        self._numbers = itertools.count(1)

    def set_run(self, run: Run) -> None:
        """Set the run that `run` returns."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid works for."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to one device."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """The node ids of all devices, in the order of their partitions."""
        return list(self._node_configs)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages and return their ids; ValueError for a device that does not exist."""
        ids = []
        for message in messages:
            if message.metadata.dst_node_id not in self._node_configs:
                raise ValueError(f"no device has the node id {message.metadata.dst_node_id}")
            message_id = f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = message_id
            self._send(message_id, message)
            ids.append(message_id)
        return ids

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies that came within `timeout` seconds; nobody waits for the rest."""
        waiting = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            arrived = list(self.pull_messages(waiting))
            replies += arrived
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if waiting and not arrived:
                time.sleep(_POLL_SECONDS)
        self.forget(waiting)
        return replies

    def forget(self, message_ids: Iterable[str]) -> None:
        """Nobody will ask for the replies to these messages: devices that have not begun to answer never do."""
        for message_id in message_ids:
            self._forget(message_id)

    def _context(self, message: Message) -> Context:
        """What the device that the message is for knows of itself; whoever changes its state hands it to `_keep`."""
        node_id = message.metadata.dst_node_id
        return Context(
            run_id=self._run.run_id,
            node_id=node_id,
            node_config=dict(self._node_configs[node_id]),
            state=self._states.get(node_id, RecordDict()),
            run_config=dict(self._run_config),
        )

    def _keep(self, message: Message, state: RecordDict) -> None:
        """The device that the message was for remembers `state`."""
        if state:
            self._states[message.metadata.dst_node_id] = state
        else:
            self._states.pop(message.metadata.dst_node_id, None)

    @abstractmethod
    def _send(self, message_id: str, message: Message) -> None:
        """Have the message answered, now or later."""

    @abstractmethod
    def _forget(self, message_id: str) -> None:
        """Nobody will ask for the reply to this message."""
