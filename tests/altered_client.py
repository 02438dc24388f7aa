"""The real client, but for what becomes of its report and of its replies to training."""

from collections.abc import Callable
from typing import TypeAlias

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.app import app as real_client

Alter: TypeAlias = Callable[[Message, Message, Context], Message]


def unaltered(request: Message, reply: Message, context: Context) -> Message:
    """The reply as it is."""
    return reply


def altered_client(alter: Alter = unaltered, at_handshake: Alter = unaltered) -> ClientApp:
    """An app whose replies to training go through `alter(request, reply, context)`, and its report likewise."""
    app = ClientApp()

    @app.query("handshake")
    def handshake(message: Message, context: Context) -> Message:
        return at_handshake(message, real_client(message, context), context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return alter(message, real_client(message, context), context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return real_client(message, context)

    return app
