"""Flower's SuperNode with a warm process for its messages (feddac.deployment.warm); `feddac up` starts devices so."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from flwr.common.constant import ISOLATION_MODE_PROCESS
from flwr.supercore.constant import SUPERNODE_UVICORN_DEFAULT_PORT, UVICORN_DEFAULT_HOST

from feddac.deployment.processes import flower_environment, program

OWN_RUNTIME = ("--isolation", "--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certfile", "--superexec-auth-secret-file")
"""Options with which who runs client apps, and how they are reached, is decided by the user."""


def become_supernode(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by `flower-supernode` with these arguments, and start the warm process as its child.

    Where a process cannot be copied (on other systems than Linux), where an argument decides who runs client apps, or
    nothing is to be run (--help), it is Flower's SuperNode and nothing else.
    """
    command = [program("flower-supernode"), *arguments]
    given = {argument.partition("=")[0] for argument in arguments}
    if sys.platform.startswith("linux") and not given & {*OWN_RUNTIME, "--help", "-h", "--version", "-V"}:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--host", default=UVICORN_DEFAULT_HOST)
        parser.add_argument("--port", default=SUPERNODE_UVICORN_DEFAULT_PORT)
        known, _ = parser.parse_known_args(arguments)
        host = f"[{known.host}]" if ":" in known.host else known.host
        own = str(os.getpid())  # which will be that of flower-supernode
        warm = [sys.executable, "-P", "-m", "feddac.deployment.warm", f"{host}:{known.port}", own]
        subprocess.Popen(warm, env=_environment())
        command += ["--isolation", ISOLATION_MODE_PROCESS]
    os.execve(command[0], command, _environment())


def _environment() -> dict[str, str]:
    """No telemetry and tuned memory, where the user has not decided otherwise; one FLWR_HOME for both processes."""
    return flower_environment(os.environ.get("FLWR_HOME"))


if __name__ == "__main__":
    become_supernode(sys.argv[1:])
