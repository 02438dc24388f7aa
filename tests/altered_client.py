"""The real client, but for what becomes of its replies to training."""

from collections.abc import Callable
from typing import TypeAlias

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.app import app as real_client

Alter: TypeAlias = Callable[[Message, Message, Context], Message]


def altered_client(alter: Alter) -> ClientApp:
    """An app whose replies to training go through `alter(request, reply, context)`."""
    app = ClientApp()

    @app.query("handshake")
    def handshake(message: Message, context: Context) -> Message:
        return real_client(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return alter(message, real_client(message, context), context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return real_client(message, context)

    return app
