"""An inline grid whose devices of one cohort train together."""

import itertools
from collections.abc import Callable, Mapping, Sequence

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp
from flwr.supercore.run import Run

from client.batched.ahead import Ahead, Done
from client.batched.together import do_ahead, same_work
from common.settings import Scalar
from simulation.grid import InlineGrid, one_thread


class BatchedGrid(InlineGrid):
    """When a device is asked to train, so do those at once that wait for the same work, up to `together` of them.

    Each then answers in its turn, as in the other engines. `note` is told once of what is done one by one all the same.
    """

    def __init__(
        self,
        client_app: ClientApp,
        node_configs: Sequence[Mapping[str, Scalar]],
        run_config: Mapping[str, Scalar],
        run: Run,
        together: int,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        super().__init__(client_app, node_configs, run_config, run)
        self._together = together
        self._note = note
        self._noted: set[str] = set()
        self._ahead: dict[str, Done | None] = {}

    def _context(self, message: Message) -> Context:
        """That of the device, with what it did ahead of its turn."""
        message_id = message.metadata.message_id
        if message_id not in self._ahead and _trains(message):
            self._do_ahead(message)
        context = super()._context(message)
        done = self._ahead.pop(message_id, None)
        return context if done is None else Ahead(context, done)

    def _do_ahead(self, message: Message) -> None:
        """What the message asks for, and others that wait for an answer ask for too."""
        waiting = (one for one in self._pending.values() if one.metadata.message_id not in self._ahead)
        alike = (one for one in waiting if _trains(one) and same_work(message, one))
        group = [message, *itertools.islice(alike, self._together - 1)]
        asked = [(one, super(BatchedGrid, self)._context(one)) for one in group]
        with one_thread():
            done = do_ahead(asked, self._tell)
        self._ahead |= {one.metadata.message_id: each for one, each in zip(group, done, strict=True)}

    def _forget(self, message_id: str) -> None:
        super()._forget(message_id)
        self._ahead.pop(message_id, None)

    def _tell(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            self._note(message)


def _trains(message: Message) -> bool:
    return str(message.metadata.message_type).partition(".")[0] == MessageType.TRAIN
