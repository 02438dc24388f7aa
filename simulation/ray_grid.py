"""A Flower grid whose devices live in processes of Ray, as many at a time as there are workers."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import ray
import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run

from common.data.given import give
from common.data.images import DataSet, Images
from common.errors import FederationError
from common.groups import DataSettings
from common.settings import Scalar
from simulation.grid import answer, load_client_app
from simulation.local_grid import LocalGrid
from simulation.ray_cluster import Cluster

GONE = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
"""What Ray raises for a process that has ended, or that it ended because the machine's memory ran out."""

LOST = (*GONE, ray.exceptions.RayTaskError, ray.exceptions.ObjectLostError)
"""What Ray raises for a reply whose process, or the machine it lay on, is gone, or that cannot be sent."""


class RayGrid(LocalGrid):
    """Devices in `workers` processes of the Ray that is running, which share its GPUs where `gpus`. A context manager.

    Messages wait here until a process is free, each with a thread that waits for it. Replies stay in Ray's memory until
    they are pulled, so a server that pulls one at a time holds one at a time. A process that a device took down is
    replaced, and its message delivered once more; after that it is an error reply, and the next message finds a new
    process. That is done here, for a process that Ray restarts itself has been seen never to come back. A process whose
    device has not answered in time is ended and replaced, so that a device that hangs keeps no worker. The images of a
    `cluster` are put into Ray's memory, which brings them to each machine once. At the end of the block what devices
    still do is ended at once: nobody waits for their replies any more.
    """

    def __init__(
        self,
        client_app: ClientApp | str,
        node_configs: Sequence[Mapping[str, Scalar]],
        run_config: Mapping[str, Scalar],
        run: Run,
        workers: int,
        gpus: bool,
        cluster: Cluster | None = None,
    ) -> None:
        super().__init__(node_configs, run_config, run)
        share = min(1.0, ray.cluster_resources().get("GPU", 1.0) / workers) if gpus else 0.0
        worker: Any = ray.remote(num_cpus=1, num_gpus=share)(_Worker)
        self._shared: _Shared | None = None
        if cluster is not None:
            self._shared = cluster.settings, [ray.put(_arrays(cluster.data))]
        self._new_worker = partial(worker.remote, client_app, os.getcwd(), self._shared)
        self._workers = [self._new_worker() for _ in range(workers)]
        self._over = False
        self._lock = Lock()
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for one in self._workers:
            self._idle.put(one)
        self._threads = ThreadPoolExecutor(workers, "ray-worker")
        self._sent: dict[str, tuple[Message, Future[Any]]] = {}
        self._started: set[Any] = set()
        self._under_way: dict[str, Any] = {}  # the process that has begun with each message, or None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._over = True
            for worker in self._workers:
                ray.kill(worker)
        self._threads.shutdown()

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come to these messages; each is given out once.

        Raises FederationError when Ray has stopped.
        """
        replies = []
        for message_id in list(message_ids):
            if message_id in self._sent and self._sent[message_id][1].done():
                replies.append(self._reply(*self._sent.pop(message_id)))
        return replies

    def _send(self, message_id: str, message: Message) -> None:
        with self._lock:
            self._under_way[message_id] = None
        self._sent[message_id] = message, self._threads.submit(self._deliver, message)

    def _forget(self, message_id: str) -> None:
        """No process begins with it any more; one that has is ended, and whoever waits for it there replaces it."""
        if message_id not in self._sent:
            return
        self._sent.pop(message_id)[1].cancel()
        with self._lock:
            worker = self._under_way.pop(message_id, None)
            if worker is not None:
                ray.kill(worker)

    def _deliver(self, message: Message) -> Any:
        """A reference to the reply, once there is one; None for a message that is withdrawn before it is begun."""
        worker = self._idle.get()
        try:
            for again in (True, False):
                try:
                    return self._answered(message, worker)
                except GONE as error:
                    if getattr(error, "actor_init_failed", False):
                        raise  # another process would fail as it begins, too
                    worker = self._replaced(worker)
                    if self._over or not again:
                        raise
        finally:
            with self._lock:
                self._under_way.pop(message.metadata.message_id, None)
            self._idle.put(worker)

    def _answered(self, message: Message, worker: Any) -> Any:
        """As `_deliver`, of one process; what the device keeps for the next message is kept here.

        A process that is still starting has not begun with the message: it is not to be ended when that is withdrawn,
        or rounds that take less time than a start would never find a process.
        """
        if worker not in self._started:
            ray.get(worker.started.remote())
            self._started.add(worker)
        with self._lock:
            if message.metadata.message_id not in self._under_way:
                return None
            self._under_way[message.metadata.message_id] = worker
        reply, state = worker.answer.remote(message, self._context(message))
        self._keep(message, ray.get(state))
        return reply

    def _replaced(self, worker: Any) -> Any:
        """A new process in place of one that Ray cannot reach, or at the end of the block the same."""
        with self._lock:
            if self._over:
                return worker
            ray.kill(worker)
            new = self._new_worker()
            self._workers[self._workers.index(worker)] = new
            self._started.discard(worker)
            return new

    def _reply(self, message: Message, delivery: "Future[Any]") -> Message:
        try:
            reply = ray.get(delivery.result())
        except LOST as error:
            reason = f"{type(error)}:<'its process in Ray gave no reply'>"
            return Message(Error(ErrorCode.UNKNOWN, reason), reply_to=message)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise FederationError(f"Ray stopped ({reason}); --engine inline runs without it") from error
        assert isinstance(reply, Message)
        return reply


_Arrays: TypeAlias = tuple[str, tuple[str, ...], list[np.ndarray[Any, Any]]]
_Shared: TypeAlias = tuple[DataSettings, list[Any]]
"""Images by their settings, as a reference in a list: Ray hands on what is inside, and each process asks for it."""


def _arrays(data: DataSet) -> _Arrays:
    """A data set as arrays, which processes of one machine share in Ray's memory."""
    tensors = (data.train.images, data.train.labels, data.test.images, data.test.labels)
    return data.name, data.class_names, [np.ascontiguousarray(tensor.numpy()) for tensor in tensors]


def _data_set(arrays: _Arrays) -> DataSet:
    """The inverse of `_arrays`."""
    name, class_names, parts = arrays
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Ray's memory is read-only, and nobody writes into images.
        images, labels, test_images, test_labels = map(torch.from_numpy, parts)
    return DataSet(name, Images(images, labels), Images(test_images, test_labels), class_names)


class _Worker:
    """What runs in a process of Ray: the client app, called as the inline engine does."""

    def __init__(self, client_app: ClientApp | str, folder: str, shared: "_Shared | None") -> None:
        if os.path.isdir(folder):  # another machine need not have it
            os.chdir(folder)  # So that relative paths mean the same in all engines.
        if shared is not None:
            settings, [images] = shared
            give(settings, _data_set(ray.get(images)))
        self._client_app = load_client_app(client_app)

    def started(self) -> None:
        """Answers once the process can take messages."""

    @ray.method(num_returns=2)  # type: ignore[untyped-decorator]
    def answer(self, message: Message, context: Context) -> tuple[Message, RecordDict]:
        """The reply, and what the device keeps."""
        return answer(self._client_app, message, context), context.state
