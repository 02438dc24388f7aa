"""A Flower grid whose devices all live in this process: no Ray, no sockets, the real messages."""

import importlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run

from common.settings import Scalar

_FIRST_NODE_ID = 1000


class InlineGrid(Grid):
    """Delivers each message to the client app only when its reply is pulled, one device per pull.

    So a server that pulls in a loop sees replies one by one, as from real devices, and needs memory for one reply
    at a time. Messages and replies pass through Flower's own serialisation, and every device keeps its context (and
    so its state) from message to message. A message must not be changed between push and reply.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[Mapping[str, Scalar]],
        run_config: Mapping[str, Scalar],
        run: Run,
    ) -> None:
        self._client_app = client_app
        self._run = run
        self._numbers = itertools.count(1)
        self._pending: dict[str, Message] = {}
        self._contexts = {
            node_id: Context(
                run_id=run.run_id,
                node_id=node_id,
                node_config=dict(node_config),
                state=RecordDict(),
                run_config=dict(run_config),
            )
            for node_id, node_config in enumerate(node_configs, start=_FIRST_NODE_ID)
        }

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
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages and return their ids; ValueError for a device that does not exist."""
        ids = []
        for message in messages:
            if message.metadata.dst_node_id not in self._contexts:
                raise ValueError(f"no device has the node id {message.metadata.dst_node_id}")
            message_id = f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = message_id
            self._pending[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The reply to the oldest of these messages that has none yet, in a list; empty when all are answered."""
        wanted = set(message_ids)
        message_id = next((one for one in self._pending if one in wanted), None)
        if message_id is None:
            return []
        message = self._pending.pop(message_id)
        context = self._contexts[message.metadata.dst_node_id]
        with _one_thread():
            return [_transmit(answer(self._client_app, _transmit(message), context))]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies that the devices, one after the other, gave within `timeout` seconds; the rest never runs."""
        ids = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while len(replies) < len(ids) and (deadline is None or time.monotonic() < deadline):
            replies += self.pull_messages(ids)
        for message_id in ids:
            self._pending.pop(message_id, None)
        return replies


@contextmanager
def _one_thread() -> Iterator[None]:
    """Train as a Ray worker does, on one thread: sums over several threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def answer(client_app: ClientApp, message: Message, context: Context) -> Message:
    """The client app's reply, or an error reply in the wording of a deployed SuperNode when the app raises."""
    try:
        reply = client_app(message, context)
        if not isinstance(reply, Message):
            raise TypeError(f"the client app returned {type(reply).__name__}, not a Message")
        return reply
    except (Exception, SystemExit) as error:
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error)}:<'{error}'>"), reply_to=message)


def load_client_app(client_app: ClientApp | str) -> ClientApp:
    """The client app itself, or the one that an import string such as `client.app:app` names."""
    if isinstance(client_app, ClientApp):
        return client_app
    module, _, attribute = client_app.partition(":")
    loaded = getattr(importlib.import_module(module), attribute)
    if not isinstance(loaded, ClientApp):
        raise TypeError(f"{client_app} is a {type(loaded).__name__}, not a ClientApp")
    return loaded


def _transmit(message: Message) -> Message:
    """What arrives at the other end: `message` serialised and read again, under the same id."""
    contents = {object_id: one.deflate() for object_id, one in get_all_nested_objects(message).items()}
    arrived = inflate_object_from_contents(message.object_id, contents)
    assert isinstance(arrived, Message)
    arrived.metadata.__dict__["_message_id"] = message.metadata.message_id
    return arrived
