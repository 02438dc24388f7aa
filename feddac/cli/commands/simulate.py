"""`feddac simulate`: the whole system on one machine."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from feddac.cli.failures import run_ends_well
from feddac.cli.options import config_option, resume_option
from feddac.start import prepare

EXAMPLES = """
Examples:
  feddac simulate
  feddac simulate --data cifar10 --devices 20 --rounds 50 --partition dirichlet:0.5
  feddac simulate --fleet phone,microcontroller --max-memory 512KB --engine inline
  feddac simulate --config experiment.toml --seed 1 --out runs/seed-1
  feddac simulate --resume runs/seed-1
"""


def simulate(
    settings: dict[str, Any],
    engine: Annotated[
        str,
        typer.Option(
            help="Where the devices run: ray (one process per worker), inline (in this process) or batched (in this "
            "process, those of a cohort together).",
            metavar="ray|inline|batched",
            rich_help_panel="Simulation",
        ),
    ] = "ray",
    workers: Annotated[
        int,
        typer.Option(
            help="Processes of the ray engine; 0 is one per CPU.",
            metavar="N",
            min=0,
            rich_help_panel="Simulation",
        ),
    ] = 0,
    ray_address: Annotated[
        str,
        typer.Option(
            help="A Ray cluster that runs already, for the ray engine: auto on one of its machines, or HOST:PORT "
            "(default: the environment's RAY_ADDRESS; without it Ray starts on this machine).",
            metavar="ADDRESS",
            show_default=False,
            rich_help_panel="Simulation",
        ),
    ] = "",
    together: Annotated[
        int,
        typer.Option(
            help="Devices that the batched engine trains at once; 0 is 8 on a processor and 32 on a GPU.",
            metavar="N",
            min=0,
            rich_help_panel="Simulation",
        ),
    ] = 0,
    config: Annotated[Path | None, config_option("Simulation")] = None,
    resume: Annotated[
        Path | None, resume_option("Continue the run of this folder with its settings.", "Simulation")
    ] = None,
) -> None:
    """Simulate a federation: devices report budgets, the server searches, cohorts train.

    Without any option it takes handwritten digits that ship with FedDAC and a minute and a half on two cores.
    """
    from feddac.cli.display import print_result, result_console, show_progress
    from feddac.simulating import Engine, carry_out
    from server.report.record import read_run

    where = Engine.checked(engine, workers, ray_address, together)
    with show_progress(Console(stderr=True)) as progress:
        whole, folder = prepare(settings, config, resume, progress)
    with run_ends_well(folder.path), folder:  # its last lines may be what cannot be written
        with show_progress(Console(stderr=True)) as progress:
            report = carry_out(whole, folder, where, progress, resume is not None)
        console = result_console()
        print_result(console, read_run(folder))
        console.print(f"Run folder: {folder.path}\nReport:     {report}", soft_wrap=True, markup=False, highlight=False)
