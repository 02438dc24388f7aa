"""The `feddac` command."""

import os
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import click
import typer

from simulation.commands import compare, describe, device, export, keys, report, search, simulate, submit, train, up
from simulation.environment import CODE_ROOT, prefer_own_code, restart_with_cpu_tuning
from simulation.failures import INTERRUPTED, OK, USAGE, exit_code_of, say

TRAINING_COMMANDS = ("simulate", "search", "train")

app = typer.Typer(
    name="feddac",
    help="Federated learning for devices that differ in hardware.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command(epilog=simulate.EXAMPLES)(simulate.simulate)
app.command(epilog=compare.EXAMPLES)(compare.compare)
app.command(epilog=search.EXAMPLES)(search.search)
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=export.EXAMPLES)(export.export)
app.command(epilog=describe.EXAMPLES)(describe.describe)
app.command(epilog=device.EXAMPLES)(device.device)
app.command()(report.report)
app.command(epilog=up.EXAMPLES)(up.up)
app.command(epilog=submit.EXAMPLES)(submit.submit)
app.command(epilog=keys.CERTIFICATE_EXAMPLES)(keys.certificates)
app.command(epilog=keys.REGISTER_EXAMPLES)(keys.register)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"feddac {_version()}")
        raise typer.Exit


@app.callback()
def feddac(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Federated learning for devices that differ in hardware: each gets the best architecture it can afford."""


def main() -> None:
    """Run the command line of this process and exit with its code."""
    prefer_own_code()
    arguments = sys.argv[1:]
    if arguments and arguments[0] in TRAINING_COMMANDS and not {"-h", "--help"} & set(arguments):
        restart_with_cpu_tuning()
    code = run(arguments)
    if code == INTERRUPTED:
        # A second Ctrl-C may have left a thread behind, and sys.exit would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        code = app(list(arguments), prog_name="feddac", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except click.UsageError as error:
        say(f"Error: {' '.join(error.format_message().split())}")
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        return exit_code_of(error)


def _version() -> str:
    try:
        return version("feddac")
    except PackageNotFoundError:  # A checkout that is run without being installed.
        project = tomllib.loads((CODE_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return str(project["version"])


if __name__ == "__main__":
    main()
