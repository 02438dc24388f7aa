"""`feddac search`: Differentiable Architecture Compression without federation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from common.config import Config, DataSettings, ModelSettings, RunSettings, SearchSettings, key_of
from common.errors import CheckpointError, ConfigurationError
from simulation.budgets import Budgets, budgets_from_file, budgets_from_flags
from simulation.failures import run_ends_well
from simulation.options import merge, with_settings
from simulation.resolve import with_absolute_paths

if TYPE_CHECKING:
    import torch

    from common.models.description import BaseNetwork
    from server.run_folder import RunFolder
    from simulation.standalone import Material

GROUPS = (DataSettings, ModelSettings, SearchSettings, RunSettings)
FEDERATED = ("reference_fraction", "partition")  # settings of the data with no meaning here

EXAMPLES = """
Examples:

feddac search --max-macs 3M,2M,1M --stem-stride 2

feddac search --data cifar10 --max-macs 60M,30M --max-params 1.2M --preset paper

feddac search --data cifar10 --budgets devices.toml --out runs/search

feddac search --resume runs/search
"""

BUDGET_FILE = """TOML file of [[budget]] tables with name, macs, params and memory."""


@with_settings(*GROUPS, omit=FEDERATED)
def search(
    settings: dict[str, Any],
    max_macs: Annotated[
        list[str] | None,
        typer.Option(help="MACs per image: one bound per budget, as in 3M,2M, or one for all.", metavar="N[,N...]"),
    ] = None,
    max_params: Annotated[list[str] | None, typer.Option(help="Parameters, likewise.", metavar="N[,N...]")] = None,
    max_memory: Annotated[
        list[str] | None, typer.Option(help="Peak activation memory, likewise (512KB, 2MiB).", metavar="N[,N...]")
    ] = None,
    budgets: Annotated[Path | None, typer.Option(help=BUDGET_FILE, metavar="FILE.toml")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; flags win over it.", metavar="FILE.toml")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the search of this folder.", metavar="RUN_FOLDER")
    ] = None,
) -> None:
    """Search one nested family of architectures, one for each budget, on the training images of a data set."""
    from common.learning import pick_accelerator
    from dac.plan import check_feasible
    from dac.space import SearchSpace
    from server.reference import base_network
    from server.run_folder import RunFolder
    from simulation.standalone import load_material

    flags = (max_macs or [], max_params or [], max_memory or [])
    if resume is not None and (config is not None or budgets is not None or any(flags) or "out" in settings):
        raise ConfigurationError("--resume continues a search in its own folder: leave out budgets, --config and --out")
    if budgets is not None and any(flags):
        raise ConfigurationError("give budgets by --budgets or by --max-macs, --max-params and --max-memory, not both")
    folder = None if resume is None else RunFolder.open(resume)
    if folder is not None:
        asked = _read_budgets(folder)
    else:
        asked = budgets_from_flags(*flags) if budgets is None else budgets_from_file(budgets)
    given = merge(config if folder is None else folder.config_path, settings)
    whole = with_absolute_paths(Config.from_mapping(given))
    accelerator = pick_accelerator(whole.run.accelerator)
    material = load_material(whole.data, whole.search.search_batch_size, whole.run.seed)
    base = base_network(whole.model, material.data)
    check_feasible(base, list(asked.values()), SearchSpace.of(whole.search))
    if folder is None:
        folder = RunFolder.create(whole.run.out)
        folder.write_budgets(
            [
                {"name": name, "macs": one.macs, "params": one.params, "peak_memory_bytes": one.peak_memory_bytes}
                for name, one in asked.items()
            ]
        )
        omitted = {key_of(name) for name in FEDERATED}
        own = {key for group in GROUPS for key in group.keys()} - omitted  # noqa: SIM118
        folder.write_config({key: value for key, value in whole.to_mapping().items() if key in own})
    with folder, run_ends_well(folder.path, "search"):
        _run(whole, folder, asked, base, material, accelerator)


def _run(
    config: Config,
    folder: "RunFolder",
    budgets: Budgets,
    base: "BaseNetwork",
    material: "Material",
    accelerator: "torch.device",
) -> None:
    pass
    from dac.files import save_member
    from dac.published import write_published
    from dac.search import search as find
    from simulation.display import show_progress
    from simulation.standalone import cost_row, cost_table

    with show_progress(Console(stderr=True)) as progress:
        family = find(
            base,
            list(budgets.values()),
            material.train,
            material.validation,
            config.search,
            seed=config.run.seed,
            accelerator=accelerator,
            progress=progress,
            checkpoint=folder.checkpoint_folder / "search.safetensors",
            record=folder.epoch_recorder("search"),
        )
    names = list(budgets)
    table = cost_table("Architectures", "validation")
    for name, member in zip(names, family.members, strict=True):
        parent = None if member.parent is None else names[member.parent]
        save_member(folder.architecture_path(name), member, name=name, parent=parent, seed=config.run.seed)
        table.add_row(*cost_row(name, member.architecture.costs, member.validation_accuracy))
    if base.model == "mobilenet_v2":
        found = {name: member.architecture for name, member in zip(names, family.members, strict=True)}
        write_published(folder.path / "net_cfg.json", found)
    console = Console()
    console.print(table)
    console.print(f"Run folder: {folder.path}", soft_wrap=True, markup=False, highlight=False)


def _read_budgets(folder: "RunFolder") -> Budgets:
    from common.budget import RESOURCES, DeviceBudget

    rows = folder.read_budgets()
    if not all("name" in row for row in rows):
        raise CheckpointError(f"{folder.path} holds no search; resume it with the command that began it")
    return {str(row["name"]): DeviceBudget(*(row.get(resource) for resource in RESOURCES)) for row in rows}
