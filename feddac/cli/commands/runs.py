"""`feddac runs`: the runs below a folder, with their results."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigurationError, FedDACError
from feddac.cli.display import result_console

if TYPE_CHECKING:
    from rich.table import Table

DEEPEST = 4
"""Folders of comparisons hold runs at CELL/METHOD/seed-N."""


def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder of runs.")] = Path("runs"),
) -> None:
    """List the runs of a folder, newest last: what was run, how far it came, how good it is."""
    if not folder.is_dir():
        raise ConfigurationError(
            f"there is no folder {folder}; runs are kept in the folder runs unless --out says more"
        )
    found = sorted(_below(folder, DEEPEST), key=lambda path: (path / "config.toml").stat().st_mtime)
    if not found:
        raise ConfigurationError(f"there is no run below {folder}")
    console = result_console()
    console.print(_table(folder, found))


def _below(folder: Path, depth: int) -> list[Path]:
    if (folder / "config.toml").is_file():
        return [folder]
    if depth == 0:
        return []
    inner = [one for one in sorted(folder.iterdir()) if one.is_dir() and not one.is_symlink()]
    return [run for one in inner for run in _below(one, depth - 1)]


def _table(folder: Path, found: list[Path]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold")
    for heading in ("command", "data", "method", "state"):
        table.add_column(heading, overflow="fold")
    table.add_column("test\naccuracy", justify="right", no_wrap=True)
    for path in found:
        table.add_row(str(path.relative_to(folder)), *_row(path))
    return table


def _row(path: Path) -> tuple[str, str, str, str, str]:
    from common.wording import number_of, percent, plain, printable
    from server.run_folder import RunFolder

    run = RunFolder(path)
    try:
        config = run.read_config()
        summary = run.read_summary() if run.summary_path.exists() else {}
        kind = run.kind
        rounds = max((int(event["round"]) for event in run.events("round")), default=0)
        state = {
            "simulate": f"{rounds} of {config.get('rounds')} rounds",
            "train": f"{len(run.events('train'))} of {config.get('epochs')} epochs",
            "search": f"{len(list(run.architectures_folder.glob('*.json')))} architectures",
        }[kind]
        method = str(config.get("method", ""))
    except FedDACError as error:
        return "", "", "", f"damaged: {printable(error, 60)}", ""
    accuracy = percent(number_of(summary.get("test_accuracy")))
    data = Path(str(config.get("data", ""))).name
    return kind, printable(data, 30), method, state, plain(accuracy)
