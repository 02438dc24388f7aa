"""`feddac export`: the trained models of a run as files for devices."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from common.errors import ConfigurationError
from common.groups import DataSettings
from feddac.cli.options import with_settings

if TYPE_CHECKING:
    from rich.table import Table

    from feddac.standalone.exporting import Exported

UNUSED = [one.name for one in dataclasses.fields(DataSettings) if one.name not in ("data", "data_folder")]

EXAMPLES = """
Examples:
  feddac export runs/mine
  feddac export runs/mine phone
  feddac export runs/mine --device device-03 --out models
  feddac export runs/train
"""


@with_settings(DataSettings, omit=UNUSED, default="the run's")
def export(
    settings: dict[str, Any],
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of feddac simulate, train or search; or one model or architecture file."
        ),
    ],
    which: Annotated[
        str | None,
        typer.Argument(metavar="[all|NAME]", help="Name of a cohort, profile or device.", show_default=False),
    ] = None,
    cohort: Annotated[str | None, typer.Option(help="Only the model of this cohort.", metavar="NAME")] = None,
    device: Annotated[str | None, typer.Option(help="Only the model of this device.", metavar="NAME")] = None,
    profile: Annotated[str | None, typer.Option(help="Only the models of this profile.", metavar="NAME")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files (default: the folder export in RUN).", metavar="FOLDER")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The network that a single file names, where it is not one of ours.", metavar="MODEL"),
    ] = None,
) -> None:
    """Export trained models to ONNX, float32 and int8, that take raw images and score what the run reports.

    Each file is checked against PyTorch and tested on the run's test images, or on those of --data.
    """
    from common.models import allow_network
    from feddac.cli.display import result_console, show_progress
    from feddac.standalone.exporting import export_models

    if model is not None:
        allow_network(model)
    named = {kind: name for kind, name in (("cohort", cohort), ("device", device), ("profile", profile)) if name}
    if len(named) + (which is not None) > 1:
        raise ConfigurationError("name one of a cohort, a device and a profile, or none for all models")
    kind, name = next(iter(named.items()), ("", which or "all"))
    with show_progress(Console(stderr=True)) as progress:
        exported = export_models(run, name, kind=kind, out=out, data=settings, progress=progress)
    console = result_console()
    console.print(_table(exported))
    for one in exported:
        for note in one.notes:
            console.print(f"Note: {note}", soft_wrap=True, markup=False, highlight=False)
    worst = max(one.difference for one in exported)
    place = exported[0].facts.parent
    lines = f"Files:  {place}\nLogits: equal to PyTorch within {worst:.1g}, batch norms folded in"
    console.print(lines, soft_wrap=True, markup=False, highlight=False)


def _table(exported: "list[Exported]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from common.wording import percent, plain, size

    table = Table(box=SIMPLE_HEAD)
    table.add_column("file", no_wrap=True)
    table.add_column("for", no_wrap=True)
    for heading in ("size", "accuracy", "of run", "ms per\nimage"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in exported:
        for file in [one.float32, *([one.int8] if one.int8 else [])]:
            figures = (
                size(file.bytes),
                percent(float("nan") if file.accuracy is None else file.accuracy),
                percent(float("nan") if one.model.reported_accuracy is None else one.model.reported_accuracy),
            )
            table.add_row(
                file.path.name,
                "\n".join(one.model.profiles) if file is one.float32 else "",
                *map(plain, figures),
                f"{file.latency_ms:.2f}",
            )
    return table
