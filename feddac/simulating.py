"""A federation simulated in its run folder, with its report: what `feddac simulate` and `feddac.simulate` do."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from common.config import Config
from common.learning import pick_accelerator
from common.progress import Progress
from feddac.start import CLIENT_APP
from server.federation import federate
from server.report.build import build_report
from server.run_folder import RunFolder
from simulation.engines import check_engine, cluster_address, run_federation
from simulation.ray_cluster import Cluster

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid


@dataclass(frozen=True)
class Engine:
    """Where the devices run, as `run_federation` has it; `address` is that of a Ray cluster, or empty."""

    name: str
    workers: int
    address: str
    together: int

    @classmethod
    def checked(cls, name: str, workers: int, address: str, together: int) -> Self:
        """The engine a user asked for; ConfigurationError for an unknown one or a number that it has no use for."""
        check_engine(name, together, workers)
        return cls(name, workers, cluster_address(name, address), together)

    def __str__(self) -> str:
        if self.name != "ray":
            return "this process"
        return f"the Ray cluster at {self.address}" if self.address else "Ray"


def carry_out(config: Config, folder: RunFolder, engine: Engine, progress: Progress, resume: bool) -> Path:
    """Run the federation of `config` in the open `folder`, from its checkpoint with `resume`; returns the report."""
    progress.start("devices", 1)
    progress.advance("devices", 0, f"starting {config.fleet.devices} in {engine}")

    def serve(grid: "Grid", context: "Context") -> None:
        progress.finish("devices", f"{config.fleet.devices} started in {engine}")
        federate(grid, config, folder, progress, resume)

    run_federation(
        engine.name,
        serve,
        CLIENT_APP,
        config.to_mapping(),
        config.fleet.devices,
        engine.workers,
        pick_accelerator(config.run.accelerator).type == "cuda",
        Cluster.at(engine.address, config.data),
        engine.together,
        progress.note,
    )
    progress.start("report", 1)
    report = build_report(folder.path)
    progress.finish("report", "built")
    return report
