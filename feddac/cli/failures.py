"""How a command ends when something goes wrong: one line that a person can act on, and an exit code."""

import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from common.errors import ConfigurationError, FedDACError
from feddac.endings import FAILED, INTERRUPTED, ONCE_MENDED, USAGE, storage_problem

MOST_LETTERS = 1000


@contextmanager
def run_ends_well(folder: Path, command: str = "simulate") -> Iterator[None]:
    """Around the work on a run folder: Ctrl-C tells how to go on, a bug leaves its traceback in the folder."""
    try:
        yield
    except (FedDACError, typer.Exit):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if is_ctrl_c(error):
            say(f"Interrupted; resume with: feddac {command} --resume {shlex.quote(str(folder))}")
            raise typer.Exit(INTERRUPTED) from None
        if problem := storage_problem(error):
            again = f"feddac {command} --resume {shlex.quote(str(folder))}"
            what = f"cannot write in {folder}: {problem}"
            if not (folder / "config.toml").exists():
                what = f"the run folder {folder} was removed, moved or replaced while the run went on"
            say(f"Error: {what}{ONCE_MENDED}resume with: {again}")
            raise typer.Exit(FAILED) from None
        where = folder / "error.txt"
        try:
            where.write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:
            raise error from None
        say(f"Error: a bug in FedDAC ({describe(error)}); its traceback is in {where}")
        raise typer.Exit(FAILED) from None


def is_ctrl_c(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or what failed only because Ctrl-C came in its midst: a clean-up that could not be done.

    An error of ours is none: it has something to say of its own.
    """
    if isinstance(error, FedDACError):
        return False
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def exit_code_of(error: Exception) -> int:
    """Print `error` as its kind deserves and return the exit code: 2 for a wrong setting, else 1."""
    if isinstance(error, FedDACError):
        say_error(str(error))
        return USAGE if isinstance(error, ConfigurationError) else FAILED
    if problem := storage_problem(error):
        say(f"Error: cannot write: {problem}")
        return FAILED
    traceback.print_exception(error)
    say(f"Error: a bug in FedDAC ({describe(error)}); the lines above say where")
    return FAILED


def describe(error: BaseException) -> str:
    """The kind of error and the first line of its message."""
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def say_error(message: str) -> None:
    """A mistake as one line, whatever was typed: of letters that can be shown, and of no more than MOST_LETTERS."""
    line = "".join(one if one.isprintable() else "?" for one in " ".join(message.split()))
    if len(line) > MOST_LETTERS:
        line = f"{line[: MOST_LETTERS // 2]} ... {line[-MOST_LETTERS // 2 :]}"
    say(f"Error: {line}")


def say(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)
