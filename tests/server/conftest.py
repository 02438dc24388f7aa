"""What the tests of the server share: small settings, devices, and a federation in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.app import app as real_client_app
from common.budget import DeviceBudget
from common.config import Config
from common.effects import without_effect
from common.handshake import DeviceReport
from common.methods import contract_of
from common.progress import Progress, Silent
from common.settings import key_of
from server.cohorts import Cohort
from server.devices import Device
from server.federation import federate
from server.methods import server_half
from server.methods.averaged import Averaged
from server.methods.method import Snapshot
from server.reference import Reference, load_reference
from server.run import Run as ServerRun
from server.run_folder import RunFolder
from simulation.grid import InlineGrid
from tests.server.helpers import SMALL_RUN

T = TypeVar("T")


@pytest.fixture(autouse=True)
def task_identity() -> None:
    """Flower refuses to make a message in a process that does not know which run it works for."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


@pytest.fixture
def small_config() -> Callable[..., Config]:
    def make(**changes: Any) -> Config:
        given = {key_of(name): value for name, value in changes.items()}
        contract = contract_of(given.get("method", "dac"))
        small = {key: value for key, value in SMALL_RUN.items() if contract.reads_setting(key)}
        idle = without_effect(Config.from_mapping({**small, **given}))
        return Config.from_mapping({**{key: value for key, value in small.items() if key not in idle}, **given})

    return make


@pytest.fixture
def run_folder(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "run") as folder:
        yield folder


@pytest.fixture
def make_run(run_folder: RunFolder, small_config: Callable[..., Config]) -> Callable[..., ServerRun]:
    """What the server's parts work with: by default the small config and its reference set."""

    def make(
        config: Config | None = None, reference: Reference | None = None, progress: Progress | None = None
    ) -> ServerRun:
        config = config or small_config()
        return ServerRun(
            config, run_folder, reference or load_reference(config), torch.device("cpu"), progress or Silent()
        )

    return make


@pytest.fixture
def make_method(make_run: Callable[..., ServerRun]) -> Callable[..., Averaged]:
    """The method of a run, as it is after `prepare` found these cohorts."""

    def make(cohorts: list[Cohort], config: Config | None = None, progress: Progress | None = None) -> Averaged:
        run = make_run(config, progress=progress)
        method = server_half(run.config)(run)
        assert isinstance(method, Averaged)
        method.restore(cohorts, Snapshot())
        return method

    return make


@pytest.fixture
def make_device() -> Callable[..., Device]:
    def make(
        name: str = "device-00",
        partition: int = 0,
        samples: int = 10,
        node_id: int = 7,
        held_out: int = 0,
        **bounds: int,
    ) -> Device:
        return Device(node_id, DeviceReport(name, "phone", partition, samples, DeviceBudget(**bounds), held_out))

    return make


@pytest.fixture
def run_federation(run_inline: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Run or resume a whole federation in a folder; returns its summary."""

    def run(
        config: Config, path: Path, progress: Progress | None = None, resume: bool = False, **how: Any
    ) -> dict[str, Any]:
        with RunFolder.open(path) if resume else RunFolder.create(path) as folder:
            folder.write_config(config.to_mapping())
            summary: dict[str, Any] = run_inline(
                lambda grid: federate(grid, config, folder, progress or Silent(), resume), config, **how
            )
        return summary

    return run


@pytest.fixture
def run_inline() -> Callable[..., Any]:
    """Run a server function against a client app: every device in this process, every message serialised."""

    def run(
        server: Callable[[Grid], T],
        config: Config,
        client_app: ClientApp = real_client_app,
        grid_class: type[InlineGrid] = InlineGrid,
    ) -> T:
        count = config.fleet.devices
        nodes = [{"partition-id": i, "num-partitions": count} for i in range(count)]
        return server(grid_class(client_app, nodes, config.to_mapping(), Run.create_empty(1)))

    return run
