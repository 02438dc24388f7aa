"""`feddac` commands in processes forked from one that has imported PyTorch and all of FedDAC already.

A process of its own starts from nothing and pays about six seconds of processor time for imports; these behave alike
but for that, and for one thread, as the tests themselves have.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import forkserver
from multiprocessing.context import ForkContext, ForkServerContext
from pathlib import Path

from feddac.comparison.processes import OUTPUT
from server.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent


_forked = False
"""Whether this is such a process; it has everything already, and forks others itself."""


class Forked:
    """Work that goes on in a session of its own, as `subprocess.Popen` as far as our code uses it.

    `work` returns the exit code, and is a function that can be pickled.
    """

    def __init__(
        self, work: Callable[[], int | None], home: Path, variables: Mapping[str, str], out: Path, err: Path
    ) -> None:
        self._process = _context().Process(target=_child, args=(work, home, dict(variables), out, err))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("feddac", timeout or 0.0)
        return self.returncode


def feddac_forked(
    arguments: Sequence[str], home: Path, variables: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Run `feddac` with `arguments` in the folder `home` and the environment `variables`, and wait for its end."""
    return done_forked(partial(_feddac, list(arguments)), home, variables, timeout)


def done_forked(
    work: Callable[[], int | None], home: Path, variables: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Do `work` in the folder `home` and the environment `variables`, and wait for its end."""
    out, err = home / ".stdout", home / ".stderr"
    process = Forked(work, home, variables, out, err)
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        process._process.kill()
        raise
    texts = out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")
    for path in (out, err):
        path.unlink()
    return subprocess.CompletedProcess([], code, *texts)


def start_run(folder: RunFolder, engine: str, workers: int) -> Forked:
    """In place of `feddac.comparison.processes.start_run`: go on with the run in `folder`."""
    command = ["simulate", "--resume", str(folder.path.resolve()), "--engine", engine, "--workers", str(workers)]
    output = folder.path / OUTPUT
    return Forked(partial(_feddac, command), Path.cwd(), os.environ, output, output)


@contextmanager
def changed_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """os.environ with these variables inside the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@cache
def _context() -> ForkServerContext | ForkContext:
    if _forked:
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    with changed_environment({"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()
    return context


def _feddac(arguments: Sequence[str]) -> int:
    from feddac.cli.main import run  # there already, but not where this module is imported by the tests

    return run(arguments)


def _child(work: Callable[[], int | None], home: Path, variables: Mapping[str, str], out: Path, err: Path) -> None:
    global _forked
    _forked = True
    os.setsid()
    for number, path in ((1, out), (2, err)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(home)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = [place for place in variables.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.exit(work())
