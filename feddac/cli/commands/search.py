"""`feddac search`: Differentiable Architecture Compression without federation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.budget import USUAL_TRAINING
from common.effects import no_effect
from common.errors import BudgetError, ConfigurationError
from common.groups import FEDERATED, FederationSettings
from common.settings import keys_of
from feddac.cli.failures import run_ends_well
from feddac.cli.options import config_option, resume_option, with_settings
from feddac.resolve import merge
from feddac.standalone.budgets import (
    FLAGS,
    LATENCY,
    Budgets,
    bounds_in_settings,
    budgets_from_file,
    budgets_from_flags,
)
from feddac.standalone.settings import SEARCH

EXAMPLES = """
Examples:
  feddac search --max-macs 3M,2M,1M
  feddac search --data cifar10 --max-macs 60M,30M --max-params 1.2M --preset paper
  feddac search --data cifar10 --budgets devices.toml
  feddac search --data cifar10 --max-macs 60M,30M --out runs/search
  feddac search --resume runs/search
"""

USUAL = (None, USUAL_TRAINING.batch_size)
"""What no flag and the flag with its default say."""

BUDGET_FILE = (
    """TOML file of [[budget]] tables with name, macs, params, memory, training-memory, latency-ms, profile."""
)


@with_settings(*SEARCH, omit=FEDERATED)
def search(
    settings: dict[str, Any],
    max_macs: Annotated[
        list[str] | None,
        typer.Option(help="MACs per image: one bound per budget, as in 3M,2M, or one for all.", metavar="N[,N...]"),
    ] = None,
    max_params: Annotated[
        list[str] | None,
        typer.Option(help="Parameters, likewise: a count or a size (500k, 77KB:int8).", metavar="N[,N...]"),
    ] = None,
    max_memory: Annotated[
        list[str] | None, typer.Option(help="Peak activation memory, likewise (512KB, 64KB:int8).", metavar="N[,N...]")
    ] = None,
    max_training_memory: Annotated[
        list[str] | None,
        typer.Option(
            help="Memory while a device trains, likewise: weights, gradients, momentum and what the backward "
            "pass needs.",
            metavar="N[,N...]",
        ),
    ] = None,
    max_latency_ms: Annotated[
        list[str] | None,
        typer.Option(help="Milliseconds of one image by the rates of --profile, likewise.", metavar="N[,N...]"),
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Device profile by whose rates --max-latency-ms is judged.", metavar="NAME")
    ] = "",
    local_batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images per training step of the devices, for --max-training-memory. "
            f"[default: {USUAL_TRAINING.batch_size}]",
            min=2,
            show_default=False,
        ),
    ] = None,
    budgets: Annotated[Path | None, typer.Option(help=BUDGET_FILE, metavar="FILE.toml")] = None,
    config: Annotated[Path | None, config_option()] = None,
    resume: Annotated[Path | None, resume_option("Continue the search of this folder.")] = None,
) -> None:
    """Search one nested family of architectures, one for each budget, on the training images of a data set."""
    from dac.files import load_member
    from feddac.cli.display import result_console, show_progress
    from feddac.standalone.material import cost_row, cost_table
    from feddac.standalone.searching import prepare_search
    from server.run_folder import RunFolder

    values = (max_macs, max_params, max_memory, max_training_memory, max_latency_ms)
    flags = {key: given for key, given in zip(FLAGS, values, strict=True) if given}
    others = (config, budgets, flags, profile, local_batch_size not in USUAL, "out" in settings)
    if resume is not None and any(others):
        raise ConfigurationError(
            "--resume continues a search in its own folder: leave out budgets, --profile, --local-batch-size, --config "
            "and --out"
        )
    if budgets is not None and flags:
        raise ConfigurationError(f"give budgets by --budgets or by --max-{next(iter(flags))}, not both")
    file = config if resume is None else RunFolder.open(resume).config_path
    given = merge(file, settings, known=keys_of(*SEARCH))
    asked = None if resume is not None else _budgets(given, flags, profile, local_batch_size, budgets)
    with show_progress(Console(stderr=True)) as progress:
        try:
            job = prepare_search(given, asked, progress, resume)
        except BudgetError as error:  # the bounds of a file are no flags
            flags_help = budgets is None and resume is None
            kept = {key: value for key, value in error.remedy.items() if flags_help or not key.startswith("max-")}
            raise BudgetError(str(error), kept) from None
        with run_ends_well(job.folder.path, "search"):
            job.run(progress)
    folder = job.folder
    table = cost_table("Architectures", "validation")
    for entry in folder.read_budgets():
        member = load_member(folder.architecture_path(entry.name))
        table.add_row(*cost_row(entry.name, member.architecture.costs, member.validation_accuracy))
    console = result_console()
    console.print(table)
    console.print(f"Run folder: {folder.path}", soft_wrap=True, markup=False, highlight=False)


def _budgets(
    given: Mapping[str, Any], flags: dict[str, list[str]], profile: str, local_batch_size: int | None, file: Path | None
) -> Budgets:
    """Those of the budget file or the flags; where these say nothing, the settings `given` do."""
    bounds = flags if file is not None else {**bounds_in_settings(given, profile), **flags}
    if profile and LATENCY not in bounds:
        raise ConfigurationError(no_effect("profile", f"{profile!r:.80}", "without --max-latency-ms"))
    batch_size = {} if local_batch_size is None else {"local-batch-size": local_batch_size}
    training = FederationSettings.picked_from({**given, **batch_size}).local_training
    asked = budgets_from_flags(bounds, profile, training) if file is None else budgets_from_file(file, training)
    if local_batch_size not in USUAL and all(one.training_memory_bytes is None for one in asked.values()):
        without = "without a bound on training-memory"
        raise ConfigurationError(no_effect("local-batch-size", str(local_batch_size), without))
    return asked
