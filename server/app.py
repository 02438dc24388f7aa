"""The ServerApp that `flwr run` and deployments start."""

import logging
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config import Config
from common.progress import Logged
from server.federation import federate
from server.run_folder import RunFolder

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation with the settings of the run configuration, and write its report.

    If `out` names a folder that holds a run, that run is resumed: after a crash, start it again with the same
    settings. A relative `out` lies below the folder in which the SuperLink or its ServerApp process was started, so an
    absolute one is better.
    """
    config = Config.from_mapping(context.run_config)
    logger = logging.getLogger("flwr")
    resume = bool(config.run.out) and (Path(config.run.out) / "config.toml").exists()
    folder = RunFolder.open(config.run.out) if resume else RunFolder.create(config.run.out)
    if not Path(config.run.out).is_absolute():
        logger.warning("The run folder is %s; give an absolute path as out to choose it.", folder.path.resolve())
    if resume:
        folder.require_federation()
    else:
        folder.write_config(config.to_mapping())
    with folder:
        federate(grid, config, folder, Logged(logger), resume)
        from server.report.build import build_report  # loads what draws, which a run needs no sooner

        logger.info("The report is %s", build_report(folder.path))
