"""`feddac report`: build the HTML report of run folders again."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN_FOLDER...", help="Run folders, finished or not.")],
) -> None:
    """Build report.html of each run folder from what the run recorded."""
    from server.report.build import build_report

    for folder in folders:
        print(build_report(folder))
