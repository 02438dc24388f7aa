"""`feddac supernode`: Flower's SuperNode with a warm process for its messages, under a supervisor of both.

`feddac up` starts devices so too. What takes memory, to read the arguments, is gone when the supervisor begins.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
from flwr.app.user_config import UserConfig
from flwr.common.config import parse_config_args
from flwr.common.constant import ISOLATION_MODE_PROCESS
from flwr.supercore.constant import SUPERNODE_UVICORN_DEFAULT_PORT, UVICORN_DEFAULT_HOST

from client.node_config import check_node_config
from common.errors import ConfigurationError
from feddac.deployment.processes import flower_environment, program

OWN_RUNTIME = ("--isolation", "--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certfile", "--superexec-auth-secret-file")
"""Options with which who runs client apps, and how they are reached, is decided by the user."""


def become_supernode(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the supervisor of `flower-supernode` with these arguments, and of a warm process.

    Where a process cannot be copied (on other systems than Linux) or an argument decides who runs client apps, there is
    no warm process. Where nothing is to be run (--help), and on Windows, it is Flower's SuperNode and nothing else.
    Raises ConfigurationError for a `--node-config` that cannot be read, or has a key that no device knows.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--host", default=UVICORN_DEFAULT_HOST)
    parser.add_argument("--port", default=SUPERNODE_UVICORN_DEFAULT_PORT)
    parser.add_argument("--node-config", default="")
    known, _ = parser.parse_known_args(arguments)
    check_node_config(_read(known.node_config))
    given = {argument.partition("=")[0] for argument in arguments}
    if os.name != "posix" or given & {"--help", "-h", "--version", "-V"}:
        command = [program("flower-supernode"), *arguments]
    else:
        command = [sys.executable, "-P", "-m", "feddac.deployment.supervisor"]
        if sys.platform.startswith("linux") and not given & {*OWN_RUNTIME}:
            host = f"[{known.host}]" if ":" in known.host else known.host
            command += [f"{host}:{known.port}", *arguments, "--isolation", ISOLATION_MODE_PROCESS]
        else:
            command += ["", *arguments]
    os.execve(command[0], command, _environment())


def _read(text: str) -> UserConfig:
    """The node configuration as Flower reads it; ConfigurationError for a text of which it would not read all."""
    try:
        if not text.endswith(".toml"):
            for word in shlex.split(text):
                key, sign, _ = word.partition("=")
                if not (key and sign):
                    raise ValueError(word)
        return parse_config_args([text])
    except OSError as error:
        raise ConfigurationError(f"cannot read --node-config {text}: {error.strerror or error}") from None
    except (click.ClickException, ValueError):
        raise ConfigurationError(
            f"--node-config cannot be {text!r:.200}: give KEY=VALUE without spaces around '=', and quote what is no "
            'number, as in partition-id=0 device-name="camera"'
        ) from None


def _environment() -> dict[str, str]:
    """No telemetry and tuned memory, where the user has not decided otherwise."""
    return flower_environment(os.environ.get("FLWR_HOME"))


if __name__ == "__main__":
    become_supernode(sys.argv[1:])
