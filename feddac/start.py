"""What commands that run a federation do before it: settings from flags and files, checks, the run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config import Config
from common.effects import require_effect
from common.errors import ConfigurationError
from common.fleet import is_fleet_file
from common.progress import Progress, Silent
from feddac.resolve import fit_to_fleet_file, merge, with_absolute_paths

if TYPE_CHECKING:
    from server.run_folder import RunFolder

CLIENT_APP = "client.app:app"
"""What the devices run, as Flower imports it."""


def prepare(
    settings: Mapping[str, Any], config: Path | None, resume: Path | None, progress: Progress | None = None
) -> tuple[Config, "RunFolder"]:
    """The whole configuration of a run and its folder, a new one that holds config.toml or the one to resume.

    Every mistake that can be found without work is raised here, and then nothing has been written. `progress` is told
    of images that must be downloaded or decoded first.
    """
    from common.data.cache import announcing
    from common.learning import pick_accelerator
    from server.checkpoint import is_checkpointed
    from server.run_folder import RunFolder
    from simulation.preflight import check

    if resume is not None and (config is not None or "out" in settings):
        raise ConfigurationError("--resume continues a run in its own folder: leave out --config and --out")
    earlier = None
    if resume is not None:
        earlier = RunFolder.open(resume)
        earlier.require_federation()
        config = earlier.config_path
    given = merge(config, settings)
    if earlier is not None and "fleet" not in settings and earlier.fleet_path.exists():
        given["fleet"] = str(earlier.fleet_path)
    whole = with_absolute_paths(Config.from_mapping(fit_to_fleet_file(given)))
    pick_accelerator(whole.run.accelerator)
    if earlier is None:  # what an earlier FedDAC began with may have no effect in this one
        require_effect(whole)
    progress, told = progress or Silent(), []

    def tell() -> None:
        told.append(True)
        progress.start("data", 1)
        progress.advance("data", 0, f"reading {whole.data.data}, which is then kept for other runs")

    with announcing(tell):
        whole, partition = check(whole, begun=earlier is not None and is_checkpointed(earlier.checkpoint_folder))
    if told:
        progress.finish("data", f"{len(partition.class_names)} classes")
    if earlier is not None:
        return whole, earlier
    folder = RunFolder.create(whole.run.out)
    if is_fleet_file(whole.fleet.fleet):
        whole = whole.changed({"fleet": str(folder.keep_fleet_file(Path(whole.fleet.fleet)))})
    folder.write_config(whole.to_mapping())
    folder.write_partition(partition.class_names, partition.counts)
    return whole, folder
