"""How a command ends when something goes wrong: one line that a person can act on, and an exit code."""

import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from common.errors import ConfigurationError, FedDACError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@contextmanager
def run_ends_well(folder: Path, command: str = "simulate") -> Iterator[None]:
    """Around the work on a run folder: Ctrl-C tells how to go on, a bug leaves its traceback in the folder."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Interrupted; resume with: feddac {command} --resume {shlex.quote(str(folder))}")
        raise typer.Exit(INTERRUPTED) from None
    except (FedDACError, typer.Exit):
        raise
    except Exception as error:
        where = folder / "error.txt"
        try:
            where.write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:
            raise error from None
        say(f"Error: a bug in FedDAC ({describe(error)}); its traceback is in {where}")
        raise typer.Exit(FAILED) from None


def exit_code_of(error: Exception) -> int:
    """Print `error` as its kind deserves and return the exit code: 2 for a wrong setting, else 1."""
    if isinstance(error, FedDACError):
        say(f"Error: {error}")
        return USAGE if isinstance(error, ConfigurationError) else FAILED
    traceback.print_exception(error)
    say(f"Error: a bug in FedDAC ({describe(error)}); the lines above say where")
    return FAILED


def describe(error: Exception) -> str:
    """The kind of error and the first line of its message."""
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def say(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)
