"""`feddac report`: build the HTML report of run folders again."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_FOLDER...", help="Folders of runs, searches or trainings, finished or not."),
    ],
) -> None:
    """Build report.html of each folder from what was recorded in it."""
    from server.report.build import build_report

    for folder in folders:
        print(build_report(folder))
