"""The ways to run a federation, behind one function.

Flower's own simulation is not used: it carries no run configuration, hides the server's exceptions and its result, and
asks its in-memory link once for every device, which takes a fleet of ten thousand minutes to report.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from common.errors import ConfigurationError
from common.settings import Scalar
from simulation.environment import prefer_own_code
from simulation.grid import InlineGrid, load_client_app

if TYPE_CHECKING:
    from simulation.ray_cluster import Cluster

T = TypeVar("T")

ENGINES = ("ray", "inline", "batched")

TOGETHER_ON_CPU, TOGETHER_ON_GPU = 8, 32
"""How many devices the batched engine trains at once where nothing else was asked for."""

_RUN_ID = 1
_TASK_ID = 1


def check_engine(engine: str, together: int = 0, workers: int = 0) -> None:
    """Raise ConfigurationError for an unknown engine, or a number that it has no use for; 0 stands for none given."""
    if engine not in ENGINES:
        raise ConfigurationError(f"--engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if together and engine != "batched":
        raise ConfigurationError(f"--together is for the batched engine, not for {engine}: leave out one of the two")
    if together < 0:
        raise ConfigurationError(f"--together must be at least 0, not {together}")
    if workers and engine != "ray":
        raise ConfigurationError(f"--workers is for the ray engine, not for {engine}: leave out one of the two")
    if workers < 0:
        raise ConfigurationError(f"--workers must be at least 0, not {workers}")


def workers_of_each(engine: str, runs: int) -> int:
    """How many workers each of so many runs at a time has, which share the CPUs; 0 for an engine that has none."""
    return max(1, _cpus() // runs) if engine == "ray" else 0


def cluster_address(engine: str, given: str) -> str:
    """Where the Ray cluster is that devices run on: `given`, else the environment's RAY_ADDRESS; empty for none.

    Raises ConfigurationError for an engine that has none, and where no cluster answers.
    """
    if given and engine != "ray":
        raise ConfigurationError(f"--ray-address is for the ray engine, not for {engine}: leave out one of the two")
    address = given or (os.environ.get("RAY_ADDRESS", "") if engine == "ray" else "")
    if address:
        from simulation.ray_cluster import check_address

        check_address(address)
    return address


def run_federation(
    engine: str,
    server_main: Callable[[Grid, Context], T],
    client_app: ClientApp | str,
    run_config: Mapping[str, Scalar],
    devices: int,
    workers: int = 0,
    gpus: bool = False,
    cluster: "Cluster | None" = None,
    together: int = 0,
    note: Callable[[str], None] = lambda message: None,
) -> T:
    """Run `server_main` against `devices` virtual devices and return what it returns, or raise what it raises.

    `engine` is "ray" (devices in `workers` processes, 0 for one per CPU, sharing the GPUs there are when `gpus`), on
    this machine or on those of a `cluster`, "inline" (all in this process and thread), or "batched" (as inline, but up
    to `together` devices of a cohort train at once, 0 for as many as suit the accelerator; `note` is told of what is
    done one by one all the same). `client_app` is a ClientApp or an import string; under Ray its functions must be
    importable. Devices see `run_config` and `{"partition-id": i, "num-partitions": devices}`. A client that raises
    becomes an error reply; one that hangs or dies under Ray costs its own reply, not the run.

    Raises ConfigurationError for an unknown engine and where no cluster answers, FederationError when Ray cannot start
    or stops.
    """
    check_engine(engine, together, workers)
    prefer_own_code()
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _TASK_ID, _RUN_ID, SUPERLINK_NODE_ID
    run = Run.create_empty(_RUN_ID)
    run.primary_task_id = _TASK_ID
    run.federation_id = NOOP_FEDERATION_ID
    context = Context(_RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), dict(run_config))
    node_configs = [{"partition-id": i, "num-partitions": devices} for i in range(devices)]
    loaded = load_client_app(client_app)  # An import error is raised here, in full, and not in a worker.
    if engine == "inline":
        with _quiet():
            return server_main(InlineGrid(loaded, node_configs, run_config, run), context)
    if engine == "batched":
        from simulation.batched_grid import BatchedGrid

        limit = together or (TOGETHER_ON_GPU if gpus else TOGETHER_ON_CPU)
        with _quiet():
            return server_main(BatchedGrid(loaded, node_configs, run_config, run, limit, note), context)
    from simulation.ray_cluster import joined_ray, private_ray
    from simulation.ray_grid import RayGrid

    if cluster is None:
        ray = private_ray(min(workers or _cpus(), devices))
    else:
        ray = joined_ray(cluster.address, min(workers or devices, devices))
    with (
        _quiet(),
        ray as cpus,
        RayGrid(client_app, node_configs, run_config, run, cpus, gpus, cluster) as grid,
    ):
        return server_main(grid, context)


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


def _cpus() -> int:
    """CPUs this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
