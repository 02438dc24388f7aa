"""A Flower grid whose devices all live in this process: no Ray, no sockets, the real messages."""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run

from common.settings import Scalar
from simulation.local_grid import LocalGrid


class InlineGrid(LocalGrid):
    """Delivers each message to the client app only when its reply is pulled, one device per pull.

    So a server that pulls in a loop sees replies one by one, as from real devices, and needs memory for one reply
    at a time. Messages and replies pass through Flower's own serialisation.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[Mapping[str, Scalar]],
        run_config: Mapping[str, Scalar],
        run: Run,
    ) -> None:
        super().__init__(node_configs, run_config, run)
        self._client_app = client_app
        self._pending: dict[str, Message] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The reply to the oldest of these messages that has none yet, in a list; empty when all are answered."""
        wanted = set(message_ids)
        message_id = next((one for one in self._pending if one in wanted), None)
        if message_id is None:
            return []
        message = self._pending.pop(message_id)
        context = self._context(message)
        with one_thread():
            reply = _transmit(answer(self._client_app, _transmit(message), context))
        self._keep(message, context.state)
        return [reply]

    def _send(self, message_id: str, message: Message) -> None:
        self._pending[message_id] = message

    def _forget(self, message_id: str) -> None:
        self._pending.pop(message_id, None)


@contextmanager
def one_thread() -> Iterator[None]:
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
