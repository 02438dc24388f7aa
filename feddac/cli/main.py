"""The `feddac` command."""

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Annotated

import click
import typer

from common.config import GROUPS
from common.errors import BudgetError
from common.methods import contract_of
from common.settings import Scalar, Settings
from common.version import version as feddac_version
from feddac.cli.commands import (
    compare,
    describe,
    device,
    export,
    keys,
    listings,
    report,
    runs,
    search,
    simulate,
    submit,
    supernode,
    train,
    tune,
    up,
)
from feddac.cli.failures import exit_code_of, is_ctrl_c, say_error
from feddac.cli.help import GroupedCommand, GroupedCommands
from feddac.cli.options import with_settings
from feddac.endings import INTERRUPTED, OK, REMEDY, USAGE
from feddac.parent import end_with_parent
from simulation.environment import prefer_own_code, restart_with_cpu_tuning

TRAINING_COMMANDS = ("simulate", "search", "train")


def application(own: Sequence[type[Settings]] = ()) -> typer.Typer:
    """The command line; commands that run a federation have flags for the groups of settings `own` as well."""
    app = typer.Typer(
        name="feddac",
        help="Federated learning for devices that differ in hardware.",
        no_args_is_help=True,
        cls=GroupedCommands,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )
    groups = (*GROUPS, *own)
    command = partial(app.command, cls=GroupedCommand)
    command(epilog=simulate.EXAMPLES)(with_settings(*groups)(simulate.simulate))
    command(epilog=compare.EXAMPLES)(with_settings(*groups, omit=("seed", "out"))(compare.compare))
    command(epilog=tune.EXAMPLES)(with_settings(*groups, omit=("seed", "out"))(tune.tune))
    command(epilog=search.EXAMPLES)(search.search)
    command(epilog=train.EXAMPLES)(train.train)
    command(epilog=export.EXAMPLES)(export.export)
    command(epilog=describe.EXAMPLES)(describe.describe)
    command(epilog=device.EXAMPLES)(device.device)
    command()(report.report)
    command()(runs.runs)
    command()(listings.presets)
    command(epilog=listings.PROFILE_EXAMPLES)(listings.profiles)
    command(epilog=up.EXAMPLES)(with_settings(*groups)(up.up))
    passing_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    command(epilog=supernode.EXAMPLES, context_settings=passing_on)(supernode.supernode)
    command(epilog=submit.EXAMPLES)(with_settings(*groups)(submit.submit))
    command(epilog=keys.CERTIFICATE_EXAMPLES)(keys.certificates)
    command(epilog=keys.REGISTER_EXAMPLES)(keys.register)
    command(epilog=keys.UNREGISTER_EXAMPLES)(keys.unregister)
    app.callback()(feddac)
    return app


def own_settings(arguments: Sequence[str]) -> list[type[Settings]]:
    """The settings of a method that is not ours, if the arguments name one with --method package.module:Class.

    Raises ConfigurationError if it cannot be imported.
    """
    for number, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag == "--method":
            method = value or "".join(arguments[number + 1 : number + 2])
            own = contract_of(method).settings if ":" in method else None
            return [own] if own is not None and own not in GROUPS else []
    return []


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"feddac {feddac_version()}")
        raise typer.Exit


def feddac(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Federated learning for devices that differ in hardware: each gets the best architecture it can afford."""


def main() -> None:
    """Run the command line of this process and exit with its code."""
    prefer_own_code()
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    arguments = sys.argv[1:]
    if arguments and arguments[0] in TRAINING_COMMANDS and not {"-h", "--help", "--help-all"} & set(arguments):
        restart_with_cpu_tuning()
    end_with_parent()
    code = run(arguments)
    if code == INTERRUPTED:
        # A second Ctrl-C may have left a thread behind, and sys.exit would wait for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """What asks a service to end, such as a job scheduler, ends it as a person does: tidily, and resumable."""
    raise KeyboardInterrupt


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        app = application(own_settings(arguments))
        code = app(list(arguments), prog_name="feddac", standalone_mode=False)
        return code if isinstance(code, int) else OK
    except click.UsageError as error:
        say_error(error.format_message())
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BudgetError as error:
        works = f"{REMEDY}{with_changes(arguments, error.remedy)}" if error.remedy else ""
        return exit_code_of(BudgetError(f"{error}{works}"))
    except Exception as error:
        return INTERRUPTED if is_ctrl_c(error) else exit_code_of(error)


def with_changes(arguments: Sequence[str], changes: Mapping[str, Scalar]) -> str:
    """The command of `arguments` with these settings instead of those it gives.

    >>> with_changes(["simulate", "--width=2", "--seed", "1"], {"width": 0.5})
    'feddac simulate --seed 1 --width 0.5'
    """
    flags = {f"--{key}" for key in changes}
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument.partition("=")[0] not in flags:
            kept.append(argument)
        elif "=" not in argument:
            next(rest, None)
    return shlex.join(["feddac", *kept, *(word for key, value in changes.items() for word in (f"--{key}", str(value)))])


if __name__ == "__main__":
    main()
