"""`feddac train`: train one architecture to the end, without federation."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from common.errors import ConfigurationError
from common.groups import FEDERATED, ModelSettings
from feddac.cli.failures import run_ends_well
from feddac.cli.options import config_option, resume_option, with_settings
from feddac.resolve import merge
from feddac.standalone.settings import TRAIN, checker

if TYPE_CHECKING:
    from common.data.images import DataSet
    from dac.files import Member

EXAMPLES = """
Examples:
  feddac train runs/search/architectures/budget-1.json --data cifar10 --epochs 100 --out runs/train
  feddac train runs/search/architectures/budget-2.json --data cifar10 --teacher runs/train/architectures/trained.json
  feddac train net_cfg.json --name 10 --data cifar10
  feddac train net_cfg.json --max-macs 100M --max-params 840828 --data cifar10
  feddac train --width 0.5 --data cifar10
  feddac train --resume runs/train
"""


@with_settings(*TRAIN, omit=FEDERATED)
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
    config: Annotated[Path | None, config_option()] = None,
    resume: Annotated[Path | None, resume_option("Continue the training of this folder.")] = None,
) -> None:
    """Train an architecture on the training images of a data set; its test accuracy is measured once, at the end."""
    from dac.files import load_member
    from feddac.cli.display import result_console, show_progress
    from feddac.standalone.material import Material, cost_row, cost_table
    from feddac.standalone.training import TRAINED, prepare_training
    from server.run_folder import RunFolder

    others = (architecture, name, max_macs, max_params, inherit, teacher, config)
    if resume is not None and (any(one is not None for one in others) or "out" in settings):
        raise ConfigurationError("--resume continues a training in its own folder: leave out file, --config and --out")
    file = config if resume is None else RunFolder.open(resume).config_path
    given = merge(file, settings, checker(TRAIN))
    choice = (name, max_macs, max_params)

    def choose(model: ModelSettings, material: Material, seed: int) -> "Member":
        return _start(architecture, choice, inherit, settings, model, material.data, seed)

    with show_progress(Console(stderr=True)) as progress:
        job = prepare_training(given, choose, teacher, progress, resume, str(architecture or resume))
        with run_ends_well(job.folder.path, "train"):
            job.run(progress)
    path = job.folder.architecture_path(TRAINED)
    member, summary = load_member(path), job.folder.read_summary()
    table = cost_table("Trained", "validation", "test")
    table.add_row(*cost_row(path.stem, member.architecture.costs, member.validation_accuracy, summary["test_accuracy"]))
    console = result_console()
    console.print(table)
    console.print(f"Architecture and weights: {path}", soft_wrap=True, markup=False, highlight=False)


def _start(
    file: Path | None,
    choice: tuple[str | None, str | None, str | None],
    inherit: bool | None,
    flags: Mapping[str, Any],
    model: ModelSettings,
    data: "DataSet",
    seed: int,
) -> "Member":
    """The architecture to train and the weights to start from."""
    from common.bounds import parse_count
    from dac.files import load_architecture, load_member
    from dac.published import by_key, first_within, is_published, read_published
    from feddac.standalone.training import from_scratch, require_no_network, require_of
    from server.reference import base_network

    name, max_macs, max_params = choice
    architecture = None
    published = file is not None and is_published(file)
    if not published and any(one is not None for one in choice):
        raise ConfigurationError("--name, --max-macs and --max-params choose from a net_cfg.json; give such a file")
    if inherit and (file is None or published):
        raise ConfigurationError("--inherit needs an architecture file of a search, which has weights beside it")
    if file is not None and not published:
        # a run's own file has all settings, so only flags count
        require_no_network(flags, str(file), lambda key: f"--{key}")
        member = load_member(file) if inherit is not False else None
        architecture = member.architecture if member else load_architecture(file)
        require_of(str(flags.get("model", "")), architecture, str(file), "--model")
        if member is not None:
            return member
    elif file is not None:
        entries = read_published(file, base_network(model, data))
        if (name is None) == (max_macs is None and max_params is None):
            raise ConfigurationError("choose from a net_cfg.json by --name, or by --max-macs and --max-params")
        if name is None:
            macs = math.inf if max_macs is None else parse_count(max_macs, "--max-macs")
            params = math.inf if max_params is None else parse_count(max_params, "--max-params")
            name = first_within(entries, macs, params)
        architecture = by_key(entries, name)
    return from_scratch(architecture, model, data, seed, str(file or model.model))
