"""The Ray that a federation runs on: one of its own on this machine, or a cluster that is there already."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.data.images import DataSet
from common.data.sources import load
from common.errors import ConfigurationError, FederationError
from common.groups import DataSettings
from simulation.environment import CODE_ROOT, CPU_TUNING, variables

PACKAGES = ("client", "common", "dac", "feddac", "server", "simulation")
"""Our code, which a cluster is sent."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, `auto` or HOST:PORT of its head, and the images of the run, which its machines are sent once."""

    address: str
    settings: DataSettings
    data: DataSet

    @classmethod
    def at(cls, address: str, settings: DataSettings) -> "Cluster | None":
        """The cluster at `address` with the images of these settings; None for no address."""
        return cls(address, settings, load(settings)) if address else None


@contextlib.contextmanager
def private_ray(workers: int) -> Iterator[int]:
    """A private Ray of `workers` CPUs, silent, whose workers import our code and have tuned memory and threads.

    Gives `workers`. Raises FederationError when it cannot start.
    """
    environment = {
        **_tuning(),
        "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
    }
    # A Ray worker imports from the folder in which Ray was started before it looks anywhere else.
    with (
        variables(environment),
        contextlib.chdir(CODE_ROOT),
        _or_says("Ray could not start", "--engine inline runs without it"),
    ):
        _check_loopback()
        _init(address="local", num_cpus=workers, include_dashboard=False)
    with _ended_at_last():
        yield workers


@contextlib.contextmanager
def joined_ray(address: str, most: int) -> Iterator[int]:
    """The cluster at `address`, whose workers are sent our code; gives how many of its free CPUs to use, `most` or all.

    At the end of the block the cluster goes on, without anything of ours. Raises FederationError for a cluster that
    cannot be joined or has no free CPU.
    """
    import ray

    with _or_says(f"the Ray cluster at {address} cannot be joined", "without --ray-address Ray runs on this machine"):
        with tempfile.TemporaryDirectory(prefix="feddac-code-") as folder:
            for package in PACKAGES:
                hidden = shutil.ignore_patterns("__pycache__")
                shutil.copytree(CODE_ROOT / package, Path(folder, package), ignore=hidden)
            _init(address=address, runtime_env={"working_dir": folder, "env_vars": _tuning()})
        free = int(ray.available_resources().get("CPU", 0))
    with _ended_at_last():
        if not free:
            raise FederationError(f"the Ray cluster at {address} has no free CPU; wait, or end what else runs there")
        yield min(most, free)


def check_address(address: str) -> None:
    """Raise ConfigurationError unless `address` is auto or HOST:PORT and something answers there."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigurationError(
            f"--ray-address {address!r} is no address of a Ray cluster; on one of its machines it is auto, or "
            "HOST:PORT as `ray start --head` prints it"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ConfigurationError(
            f"nothing answers at --ray-address {address} ({error.strerror or error}); start a cluster there with "
            f"`ray start --head --port {port}`"
        ) from error


@contextlib.contextmanager
def _or_says(what: str, works: str) -> Iterator[None]:
    """Whatever goes wrong in the block ends Ray and is one FederationError: `what`, why, and what `works` instead."""
    import ray

    try:
        yield
    except Exception as error:
        ray.shutdown()
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise FederationError(f"{what} ({reason}); {works}") from error


@contextlib.contextmanager
def _ended_at_last() -> Iterator[None]:
    """Leave Ray at the end of the block."""
    import ray

    try:
        yield
    finally:
        with no_stderr():
            ray.shutdown()


def _tuning() -> dict[str, str]:
    """The environment of processes that train."""
    untouched = {name: value for name, value in CPU_TUNING.items() if name not in os.environ}
    return {"OMP_NUM_THREADS": "1", **untouched}


def _init(**options: object) -> None:
    """`ray.init`, silent; SIGTERM keeps its meaning, for Ray's own would end the process at once, in mid-round."""
    import ray

    on_terminate = signal.getsignal(signal.SIGTERM)
    ray.init(configure_logging=True, logging_level=logging.CRITICAL, log_to_driver=False, **options)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)


@contextlib.contextmanager
def no_stderr() -> Iterator[None]:
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


def _check_loopback() -> None:
    """Raise OSError where processes of one machine cannot connect: Ray would try for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
