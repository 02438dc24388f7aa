"""Ray on this machine, started for one federation and ended with it."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

from common.errors import FederationError
from simulation.environment import CODE_ROOT, CPU_TUNING, variables


@contextlib.contextmanager
def private_ray(workers: int) -> Iterator[None]:
    """A private Ray of `workers` CPUs, silent, whose workers import our code and have tuned memory and threads.

    Raises FederationError when it cannot start.
    """
    import ray

    environment = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(folder for folder in sys.path if folder),
        **{name: value for name, value in CPU_TUNING.items() if name not in os.environ},
    }
    # A Ray worker imports from the folder in which Ray was started before it looks anywhere else.
    with variables(environment), contextlib.chdir(CODE_ROOT):
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
        yield
    finally:
        with no_stderr():
            ray.shutdown()


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
