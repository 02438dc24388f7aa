"""The two ways to run a federation on one machine, behind one function.

This is the only file that knows how a simulation is started. Flower's public `run_simulation` carries no run
configuration, hides the server's exceptions and its result, so the `ray` engine calls the private function behind
it; `pyproject.toml` pins Flower for that reason.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import tomli_w
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from common.errors import ConfigurationError, FederationError
from common.settings import Scalar
from simulation.environment import CODE_ROOT, CPU_TUNING, prefer_own_code, variables
from simulation.grid import InlineGrid, answer, load_client_app

T = TypeVar("T")

ENGINES = ("ray", "inline")

_RUN_ID = 1
_TASK_ID = 1
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0  # How long a device may go on after the server is done, before its process is killed.


def check_engine(engine: str) -> None:
    """Raise ConfigurationError for an unknown engine."""
    if engine not in ENGINES:
        raise ConfigurationError(f"--engine must be one of {', '.join(ENGINES)}, not {engine!r}")


def run_federation(
    engine: str,
    server_main: Callable[[Grid, Context], T],
    client_app: ClientApp | str,
    run_config: Mapping[str, Scalar],
    devices: int,
    workers: int = 0,
    gpus: bool = False,
) -> T:
    """Run `server_main` against `devices` virtual devices and return what it returns, or raise what it raises.

    `engine` is "ray" (devices in `workers` processes, 0 for one per CPU, sharing one GPU when `gpus`) or "inline"
    (all in this process and thread). `client_app` is a ClientApp or an import string; under Ray its functions must
    be importable. Devices see `run_config` and `{"partition-id": i, "num-partitions": devices}`. A client that raises
    becomes an error reply; one that hangs or dies under Ray costs its own reply, not the run.

    Raises ConfigurationError for an unknown engine, FederationError when Ray cannot start or stops.
    """
    check_engine(engine)
    if workers < 0:
        raise ConfigurationError(f"workers must be at least 0, not {workers}")
    prefer_own_code()
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _TASK_ID, _RUN_ID, SUPERLINK_NODE_ID
    run = Run.create_empty(_RUN_ID)
    run.primary_task_id = _TASK_ID
    run.federation_id = NOOP_FEDERATION_ID
    context = Context(_RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), dict(run_config))
    if engine == "inline":
        node_configs = [{"partition-id": i, "num-partitions": devices} for i in range(devices)]
        with _quiet():
            return server_main(InlineGrid(load_client_app(client_app), node_configs, run_config, run), context)
    workers = min(workers or _cpus(), devices)
    with _ray(workers), _RaySimulation(client_app, run, context, devices, workers, gpus) as grid:
        return server_main(grid, context)


class _RaySimulation:
    """Flower's simulation in a background thread, entered as a context manager that gives its grid.

    Flower wants to own the main thread and run the server in another one. Here the server function stays in the
    caller's thread (so that exceptions, results and Ctrl-C need no forwarding), and the server app that Flower
    starts only hands over its grid and waits.
    """

    def __init__(
        self, client_app: ClientApp | str, run: Run, context: Context, devices: int, workers: int, gpus: bool
    ) -> None:
        load_client_app(client_app)  # An import error is raised here, in full, and not in a worker.
        self._client_app = _DeviceProcess(client_app, os.getcwd())
        self._run = run
        self._context = context
        self._devices = devices
        self._resources = {
            "num_cpus": 1,
            "num_gpus": 1 / workers if gpus else 0.0,
            # A process that a device took down is replaced (Flower alone would go on using the dead one), and a
            # message that reaches it in the moment between is delivered again.
            "max_restarts": -1,
            "max_task_retries": 1,
        }
        self._handover: SimpleQueue[Grid] = SimpleQueue()
        self._server_done = threading.Event()
        self._failure: list[BaseException] = []
        self._thread = threading.Thread(target=self._simulate, name="flower-simulation", daemon=True)

    def __enter__(self) -> Grid:
        self._thread.start()
        try:
            return self._wait_for_devices()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        self._server_done.set()
        with _no_stderr():
            self._thread.join(_GRACE_SECONDS)
            while self._thread.is_alive():  # A device still works, or hangs: nobody waits for its reply any more.
                _kill_workers()
                self._thread.join(1.0)

    def _wait_for_devices(self) -> Grid:
        grid: _WatchedGrid | None = None
        while True:
            self._check_alive()
            try:
                grid = grid or _WatchedGrid(self._handover.get(timeout=_POLL_SECONDS), self._check_alive)
            except Empty:
                continue
            if len(list(grid.get_node_ids())) == self._devices:
                return grid
            time.sleep(_POLL_SECONDS)

    def _simulate(self) -> None:
        from flwr.simulation.run_simulation import _run_simulation
        from flwr.supercore.telemetry import EventType

        server_app = ServerApp()

        @server_app.main()
        def lend_grid(grid: Grid, context: Context) -> None:
            self._handover.put(grid)
            self._server_done.wait()

        try:
            with tempfile.TemporaryDirectory(prefix="feddac-") as folder:
                _write_app_config(Path(folder), self._context.run_config)
                _run_simulation(
                    num_supernodes=self._devices,
                    exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
                    client_app=self._client_app,  # type: ignore[arg-type]  # Flower only calls it.
                    server_app=server_app,
                    backend_config={"client_resources": self._resources},  # type: ignore[dict-item]
                    server_app_context=self._context,
                    app_dir=folder,
                    run=self._run,
                    is_app=True,
                )
        except BaseException as error:
            self._failure.append(error)

    def _check_alive(self) -> None:
        if not self._thread.is_alive():
            reason: BaseException | None = self._failure[0] if self._failure else None
            while reason is not None and reason.__cause__ is not None:
                reason = reason.__cause__
            raise FederationError(f"Flower's simulation stopped ({reason}); --engine inline runs without Ray")


class _WatchedGrid(Grid):
    """Flower's grid, except that waiting on a simulation that has stopped is an error and not for ever."""

    def __init__(self, grid: Grid, check: Callable[[], None]) -> None:
        self._grid = grid
        self._check = check

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._check()
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self._check()
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        waiting = set(self.push_messages(messages))
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            arrived = list(self.pull_messages(waiting))
            replies += arrived
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if waiting and not arrived:
                time.sleep(_POLL_SECONDS)
        return replies


class _DeviceProcess:
    """What travels to the Ray workers in place of the client app, and calls it there as the inline engine does."""

    def __init__(self, client_app: ClientApp | str, folder: str) -> None:
        self._client_app = client_app
        self._folder = folder

    def __call__(self, message: Message, context: Context) -> Message:
        os.chdir(self._folder)  # So that relative paths mean the same in both engines.
        return answer(load_client_app(self._client_app), message, context)


@contextlib.contextmanager
def _ray(workers: int) -> Iterator[None]:
    """A private Ray of `workers` CPUs, silent, whose workers import our code and have tuned memory and threads."""
    import ray

    environment = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
        **{name: value for name, value in CPU_TUNING.items() if name not in os.environ},
    }
    # A Ray worker imports from the folder in which Ray was started before it looks anywhere else.
    with _quiet(), variables(environment), contextlib.chdir(CODE_ROOT):
        try:
            _check_loopback()
            on_terminate = signal.getsignal(signal.SIGTERM)
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                configure_logging=True,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
            )
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_terminate)  # Ray's own would end the process at once, mid-round.
        except Exception as error:
            ray.shutdown()
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise FederationError(f"Ray could not start ({reason}); --engine inline runs without it") from error
    try:
        with _quiet():
            yield
    finally:
        with _no_stderr():
            ray.shutdown()


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what native code writes to the error stream: Ray's complains of tasks that nobody waits for any more."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Flower's log and its deprecation warnings: the server reports what a user can act on."""
    log = logging.getLogger("flwr")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(before)


def _check_loopback() -> None:
    """Raise OSError where processes of one machine cannot connect: Ray would try for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def _cpus() -> int:
    """CPUs this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kill_workers() -> None:
    import ray
    from ray._private import state

    with contextlib.suppress(ray.exceptions.RaySystemError):  # Ray may be shut down in this very moment.
        for actor in state.actors().values():
            if actor["State"] == "ALIVE":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(actor["Pid"], signal.SIGKILL)


def _write_app_config(folder: Path, run_config: Mapping[str, Scalar]) -> None:
    """The `pyproject.toml` from which Flower reads the devices' run configuration."""
    components = {"serverapp": "server.app:app", "clientapp": "client.app:app"}
    app = {"publisher": "feddac", "components": components, "config": dict(run_config)}
    document = {"project": {"name": "feddac", "version": "0"}, "tool": {"flwr": {"app": app}}}
    (folder / "pyproject.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
