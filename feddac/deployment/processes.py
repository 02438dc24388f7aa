"""Processes of this Python environment, each with its log, stopped with everything they started."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from common.errors import FederationError
from simulation.environment import CPU_TUNING, DEFAULTS

GRACE_SECONDS = 10.0
_IN_USE = re.compile(r"bind on address \('([^']+)', (\d+)[^)]*\): address already in use")


class Process:
    """A running command in a process group of its own, which collects what it starts in turn."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / "logs" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    cwd=folder,  # not the user's folder, which may hold a package called `client`
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            raise FederationError(f"cannot start {command[0]} ({error.strerror}); install FedDAC again") from None

    @property
    def pid(self) -> int:
        """The process id, which is also that of its group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one; TimeoutError if that takes longer than `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout:g} s") from None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, even if its leader has gone."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def require_running(self) -> None:
        """Raise FederationError if it has ended, which says why in one line."""
        if self.exit_code is None:
            return
        if taken := _IN_USE.search(self.log.read_text(errors="replace")):
            raise FederationError(
                f"{self.name} cannot listen on {taken[1]}:{taken[2]}, which another program took meanwhile; start again"
            )
        raise FederationError(f"{self.name} stopped at its start: {self.last_lines()}")

    def last_lines(self, count: int = 3) -> str:
        """The end of its log."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-count:]) or "it printed nothing"


def stop(processes: Iterable[Process], grace: float = GRACE_SECONDS) -> None:
    """End processes and their groups: asked first, all at once; forced after `grace` seconds, or by a second Ctrl-C."""
    processes = list(processes)
    try:
        for process in processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        for process in processes:
            with suppress(TimeoutError):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.signal(signal.SIGKILL)  # whatever of its group has outlived it
            process.wait()


def flower_environment(home: Path | str | None, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a Flower process: its FLWR_HOME, if any, no downloads, this environment's programs first."""
    own = {"PATH": _program_path(), **({} if home is None else {"FLWR_HOME": str(home)})}
    return {**DEFAULTS, **CPU_TUNING, **os.environ, **(variables or {}), **own}


def program(name: str) -> str:
    """The path of a program that was installed with Flower; FederationError if it was not."""
    path = shutil.which(name, path=_program_path())
    if path is None:
        raise FederationError(f"the program {name} is not installed beside {sys.executable}; install FedDAC again")
    return path


def _program_path() -> str:
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, chosen by the operating system."""
    sockets = []
    try:
        for _ in range(count):
            sockets.append(socket.create_server(("127.0.0.1", 0)))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
