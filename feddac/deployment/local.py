"""A whole federation on this machine: one SuperLink, one server process, one SuperNode per device."""

import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from common.budget import DeviceBudget
from common.errors import FederationError
from common.fleet import VirtualDevice, declared
from common.settings import Scalar
from feddac.deployment import leftovers
from feddac.deployment.certificates import write_certificates
from feddac.deployment.control import Control
from feddac.deployment.keeper import Keeper
from feddac.deployment.processes import GRACE_SECONDS, Process, flower_environment, free_ports, program, stop
from server.run_lock import RunLock

STARTUP_SECONDS = 120.0
MORE_SECONDS_PER_DEVICE = 6.0
RESTARTS = 3
POLL_SECONDS = 0.2
_NODE_ID = re.compile(r"SuperNode ID: (\d+)")


class LocalFederation:
    """The processes of a federation on 127.0.0.1, a context manager that stops them all.

    The SuperLink keeps its state in a database and starts no server process itself, so that a run survives its
    restart. With `tls` every connection is encrypted, only SuperNodes with a registered key are let in, and only a
    process that knows a secret runs server apps. What the processes write lies in `folder`, of which the logs are kept.

    Entering it ends what an earlier one in the same folder has left running, and raises CheckpointError if that one is
    still at work. If this process is killed, a keeper ends the others.

    `address` is the SuperLink's, "host:port"; `device_address` is where the SuperNodes connect, which is the same
    unless something stands in between.
    """

    def __init__(self, folder: Path, devices: Sequence[VirtualDevice], tls: bool, say: Callable[[str], None]) -> None:
        self._folder = folder.resolve()
        self._devices = devices
        self._tls = tls
        self._say = say
        self._restarts = 0
        self._lost: set[str] = set()
        self._certificates = self._folder / "certificates"
        self._ports = free_ports(1 + len(devices))
        self.address = self.device_address = f"127.0.0.1:{self._ports[0]}"
        self.superlink: Process | None = None
        self.server: Process | None = None
        self.supernodes: dict[str, Process] = {}
        self._lock: RunLock | None = None
        self._keeper: Keeper | None = None

    @property
    def root_certificates(self) -> Path | None:
        """The file that proves the SuperLink's identity; None without TLS."""
        return self._certificates / "ca.crt" if self._tls else None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = RunLock(self._folder)
        try:
            if ended := leftovers.end(self._folder, GRACE_SECONDS):
                self._say(f"ended {ended} processes that an earlier feddac up had left running")
            self._clear()
            self._keeper = Keeper(self._folder)
            if self._tls:
                write_certificates(self._certificates, (), _key_names(self._devices))
            self.start_superlink()
            self.start_server()
            if self._tls:
                self._register()
            for number in range(len(self._devices)):
                self.start_supernode(number)
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        processes = [one for one in (self.server, *self.supernodes.values(), self.superlink) if one is not None]
        stop(processes)
        leftovers.end(self._folder, GRACE_SECONDS)  # what has left its group, or belongs to a process that died
        if self._keeper is not None:
            self._keeper.dismiss()
        self._clear()
        if self._lock is not None:
            self._lock.release()

    def start_superlink(self) -> None:
        """Start the SuperLink, or start it again with the state it had, and wait until it answers."""
        keys = self._certificates
        secure = [
            *("--ssl-ca-certfile", str(keys / "ca.crt"), "--ssl-certfile", str(keys / "server.crt")),
            *("--ssl-keyfile", str(keys / "server.key"), "--enable-supernode-auth", *self._secret()),
        ]
        self.superlink = self._start(
            "superlink",
            [program("flower-superlink")],
            *("--host", "127.0.0.1", "--port", str(self._ports[0]), "--isolation", "process"),
            *("--database", str(self._folder / "state.db")),
            *(secure if self._tls else ["--insecure"]),
        )
        deadline = time.monotonic() + STARTUP_SECONDS
        with Control(self.address, self.root_certificates) as control:
            while True:
                self.superlink.require_running()
                with suppress(FederationError):
                    control.nodes_online()
                    return
                if time.monotonic() > deadline:
                    raise FederationError(f"the SuperLink did not start within {STARTUP_SECONDS:g} s")
                time.sleep(POLL_SECONDS)

    def start_server(self) -> None:
        """Start the process that runs server apps."""
        arguments = ["--runtime-api-address", self.address, *self._trust(), *self._secret()]
        self.server = self._start("server", [program("flower-superexec")], *arguments)

    def start_supernode(self, number: int) -> Process:
        """Start the SuperNode of device `number`, with its budget as node configuration."""
        device = self._devices[number]
        key = ["--auth-supernode-private-key", str(self._certificates / _key_names(self._devices)[number])]
        process = self._start(
            f"supernode-{number:02d}",
            [sys.executable, "-P", "-m", "feddac.deployment.supernode"],
            *("--superlink", self.device_address, *self._trust(), *(key if self._tls else [])),
            *("--port", str(self._ports[1 + number])),
            *("--node-config", node_config(number, len(self._devices), device)),
            OMP_NUM_THREADS="1",  # as in a simulation, so that both end with the same weights
        )
        self.supernodes[device.name] = process
        return process

    def wait_until_connected(self) -> None:
        """Return when every device is connected, and say so for each; FederationError for one that gives up."""
        waiting = {device.name: device for device in self._devices}
        patience = STARTUP_SECONDS + MORE_SECONDS_PER_DEVICE * len(waiting)
        deadline = time.monotonic() + patience
        while waiting:
            for name in list(waiting):
                process = self.supernodes[name]
                found = _NODE_ID.search(process.log.read_text(errors="replace"))
                if found:
                    device = waiting.pop(name)
                    profile = f"{device.profile}, " if device.profile else ""
                    self._say(f"connected: {name} ({profile}{device.budget}) is node {found[1]}")
                else:
                    process.require_running()
            if time.monotonic() > deadline:
                raise FederationError(f"{', '.join(waiting)} did not connect within {patience:g} s")
            if waiting:
                time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Say which SuperNodes have stopped; start a SuperLink that has stopped again.

        Raises FederationError when the server process is gone, or the SuperLink does not stay.
        """
        for name, process in self.supernodes.items():
            if process.exit_code is not None and name not in self._lost:
                self._lost.add(name)
                self._say(f"warning: the SuperNode of {name} has stopped; its log is {process.log}")
        assert self.superlink is not None
        assert self.server is not None
        if self.server.exit_code is not None:
            raise FederationError(f"the server process has stopped: {self.server.last_lines()}")
        if self.superlink.exit_code is not None:
            self._restarts += 1
            if self._restarts > RESTARTS:
                raise FederationError(f"the SuperLink stops again and again: {self.superlink.last_lines()}")
            self._say("warning: the SuperLink has stopped; it is started again with its database")
            self.start_superlink()

    def _start(self, name: str, command: Sequence[str], *arguments: str, **variables: str) -> Process:
        environment = flower_environment(self._folder / "flower" / name, variables)
        return Process(name, [*command, *arguments], self._folder, environment)

    def _trust(self) -> list[str]:
        return ["--root-certificates", str(self._certificates / "ca.crt")] if self._tls else ["--insecure"]

    def _secret(self) -> list[str]:
        return ["--superexec-auth-secret-file", str(self._certificates / "superexec.secret")] if self._tls else []

    def _register(self) -> None:
        with Control(self.address, self.root_certificates) as control:
            for name, device in zip(_key_names(self._devices), self._devices, strict=True):
                control.register(self._certificates / f"{name}.pub", device.name)

    def _clear(self) -> None:
        """Remove what is of no use after a run: state, unpacked apps, keys."""
        for name in ("flower", "certificates"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for path in self._folder.glob("state.db*"):
            path.unlink(missing_ok=True)


def node_config(partition: int, partitions: int, device: VirtualDevice) -> str:
    """The value of `--node-config` that makes a SuperNode this device: its name, its share of the data, its budget."""
    values: dict[str, Scalar] = {"partition-id": partition, "num-partitions": partitions}
    if device.budget != DeviceBudget():  # without bounds and name, a node takes its place in the run's fleet
        budget = device.budget
        values |= {"device-name": device.name, **({"profile": device.profile} if device.profile else {})}
        values |= declared(budget)
    return " ".join(f"{key}={_toml(value)}" for key, value in values.items())


def _toml(value: Scalar) -> str:
    # Flower's parser knows quotes, but no quotes within quotes; names of devices have none (common.device_names)
    return f'"{value}"' if isinstance(value, str) else str(value)


def _key_names(devices: Sequence[VirtualDevice]) -> list[str]:
    """File names that no device's name can reach out of."""
    return [f"device-{number:02d}" for number in range(len(devices))]
