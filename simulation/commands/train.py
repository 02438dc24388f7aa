"""`feddac train`: train one architecture to the end, without federation."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from common.config import Config, DataSettings, ModelSettings, RunSettings, TrainSettings, key_of
from common.errors import ConfigurationError
from simulation.commands.search import FEDERATED
from simulation.failures import run_ends_well
from simulation.options import merge, with_settings
from simulation.resolve import with_absolute_paths

if TYPE_CHECKING:
    import torch

    from common.data.images import DataSet
    from dac.files import Member
    from server.run_folder import RunFolder
    from simulation.standalone import Material

GROUPS = (DataSettings, ModelSettings, TrainSettings, RunSettings)
START, TEACHER, TRAINED = "start", "teacher", "trained"

EXAMPLES = """
Examples:

feddac train runs/search/architectures/budget-1.json --data cifar10 --epochs 100

feddac train runs/search/architectures/budget-2.json --teacher runs/train/architectures/trained.json

feddac train net_cfg.json --name 10 --data cifar10

feddac train net_cfg.json --max-macs 100M --max-params 840828 --data cifar10

feddac train --width 0.5 --data cifar10

feddac train --resume runs/train
"""


@with_settings(*GROUPS, omit=FEDERATED)
def train(
    settings: dict[str, Any],
    architecture: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE.json]",
            help="Architecture file of a search, or a published net_cfg.json; without one, the full base network.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Key of the architecture in a net_cfg.json.", metavar="KEY")] = None,
    max_macs: Annotated[
        str | None,
        typer.Option(help="Or: the first entry of net_cfg.json with fewer MACs (as thop counts them).", metavar="N"),
    ] = None,
    max_params: Annotated[str | None, typer.Option(help="And with fewer parameters.", metavar="N")] = None,
    inherit: Annotated[
        bool | None,
        typer.Option(
            "--inherit/--from-scratch",
            help="Start from the weights beside the architecture file (the default where there are some).",
            show_default=False,
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Trained architecture file whose answers the network also learns, such as the largest of its family.",
            metavar="FILE.json",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; flags win over it.", metavar="FILE.toml")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue the training of this folder.", metavar="RUN_FOLDER")
    ] = None,
) -> None:
    """Train an architecture on the training images of a data set; its test accuracy is measured once, at the end."""
    from common.learning import pick_accelerator
    from common.models import allow_network
    from dac.files import load_member, save_member
    from server.run_folder import RunFolder
    from simulation.standalone import check_fits, checker, load_material, part

    others = (architecture, name, max_macs, max_params, inherit, teacher, config)
    if resume is not None and (any(one is not None for one in others) or "out" in settings):
        raise ConfigurationError("--resume continues a training in its own folder: leave out file, --config and --out")
    folder = None if resume is None else RunFolder.open(resume)
    file = config if folder is None else folder.config_path
    given = merge(file, settings, checker(*GROUPS))
    data, model, recipe, run = (part(group, given) for group in GROUPS)
    assert isinstance(data, DataSettings)
    assert isinstance(model, ModelSettings)
    assert isinstance(recipe, TrainSettings)
    assert isinstance(run, RunSettings)
    data = with_absolute_paths(Config(data=data)).data
    allow_network(model.model)
    accelerator = pick_accelerator(run.accelerator)
    material = load_material(data, recipe.batch_size, run.seed)
    if folder is not None:
        start = load_member(folder.checkpoint_folder / f"{START}.json")
        kept = folder.checkpoint_folder / f"{TEACHER}.json"
        guide = load_member(kept) if kept.exists() else None
    else:
        named = {"model"} if ":" in model.model else set()  # a file's network that is not ours must be named here
        of_network = sorted((set(given) & set(ModelSettings.keys())) - named)
        choice = (name, max_macs, max_params)
        start = _start(architecture, choice, inherit, of_network, model, material.data, run.seed)
        guide = None if teacher is None else load_member(teacher)
    check_fits(start.architecture, material.data, str(architecture or resume))
    if guide is not None:
        check_fits(guide.architecture, material.data, str(teacher or resume))
    if folder is None:
        folder = RunFolder.create(run.out)
        save_member(folder.checkpoint_folder / f"{START}.json", start, name=START, parent=None, seed=run.seed)
        if guide is not None:
            save_member(folder.checkpoint_folder / f"{TEACHER}.json", guide, name=TEACHER, parent=None, seed=run.seed)
        omitted = {key_of(one) for one in FEDERATED}
        mapping = {key: value for group in (data, model, recipe, run) for key, value in group.to_mapping().items()}
        folder.write_config({key: value for key, value in mapping.items() if key not in omitted})
    with folder, run_ends_well(folder.path, "train"):
        _run(start, guide, recipe, run.seed, folder, material, accelerator)


def _start(
    file: Path | None,
    choice: tuple[str | None, str | None, str | None],
    inherit: bool | None,
    of_network: list[str],
    model: ModelSettings,
    data: "DataSet",
    seed: int,
) -> "Member":
    """The architecture to train and the weights to start from."""
    from common.architecture import Architecture
    from common.budget import DeviceBudget, parse_count
    from common.seeds import derive_seed
    from dac.files import Member, load_architecture, load_member
    from dac.published import by_key, first_within, is_published, read_published
    from server.reference import base_network

    name, max_macs, max_params = choice
    published = file is not None and is_published(file)
    if not published and any(one is not None for one in choice):
        raise ConfigurationError("--name, --max-macs and --max-params choose from a net_cfg.json; give such a file")
    if inherit and (file is None or published):
        raise ConfigurationError("--inherit needs an architecture file of a search, which has weights beside it")
    if file is not None and not published:
        if of_network:
            raise ConfigurationError(f"{file} says which network it is of: leave out --{of_network[0]}")
        if inherit is not False:
            return load_member(file)
        architecture = load_architecture(file)
    elif file is not None:
        entries = read_published(file, base_network(model, data))
        if (name is None) == (max_macs is None and max_params is None):
            raise ConfigurationError("choose from a net_cfg.json by --name, or by --max-macs and --max-params")
        if name is None:
            macs = math.inf if max_macs is None else parse_count(max_macs, "--max-macs")
            params = math.inf if max_params is None else parse_count(max_params, "--max-params")
            name = first_within(entries, macs, params)
        architecture = by_key(entries, name)
    else:
        architecture = Architecture.full(base_network(model, data))
    state = architecture.build(derive_seed(seed, "train-init")).state_dict()
    return Member(architecture, DeviceBudget(), state, 0.0)


def _run(
    start: "Member",
    guide: "Member | None",
    recipe: TrainSettings,
    seed: int,
    folder: "RunFolder",
    material: "Material",
    accelerator: "torch.device",
) -> None:
    pass
    from common.learning import evaluate, place
    from dac.files import save_member
    from dac.train import train_architecture
    from simulation.display import show_progress
    from simulation.standalone import cost_row, cost_table

    architecture = start.architecture
    teacher = None if guide is None else guide.architecture.build_from(guide.state)
    with show_progress(Console(stderr=True)) as progress:
        trained = train_architecture(
            architecture,
            start.state,
            material.train,
            material.validation,
            recipe,
            seed=seed,
            accelerator=accelerator,
            progress=progress,
            checkpoint=folder.checkpoint_folder / "train.safetensors",
            record=folder.epoch_recorder("train"),
            teacher=teacher,
        )
    module = place(architecture.build_from(trained.state), accelerator)
    test = evaluate(module, material.test, accelerator)
    result = replace(start, state=trained.state, validation_accuracy=trained.validation_accuracy, parent=None)
    path = folder.architecture_path(TRAINED)
    save_member(path, result, name=TRAINED, parent=None, seed=seed)
    folder.write_summary({"validation_accuracy": trained.validation_accuracy, "test_accuracy": test.accuracy})
    table = cost_table("Trained", "validation", "test")
    table.add_row(*cost_row(path.stem, architecture.costs, trained.validation_accuracy, test.accuracy))
    console = Console()
    console.print(table)
    console.print(f"Architecture and weights: {path}", soft_wrap=True, markup=False, highlight=False)
