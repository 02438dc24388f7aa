"""`feddac up`: a federation of separate processes on this machine."""

import os
import shlex
import signal
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console

from common.errors import ConfigurationError, FederationError
from common.process import on_signals
from feddac.cli.failures import run_ends_well, say
from feddac.cli.options import config_option, resume_option
from feddac.start import prepare

EXAMPLES = """
Examples:
  feddac up --devices 4
  feddac up --devices 4 --tls --rounds 5 --out runs/tls
  feddac up --resume runs/tls
"""


def up(
    settings: dict[str, Any],
    tls: Annotated[
        bool,
        typer.Option(
            "--tls",
            help="Encrypt every connection and let in only devices with a registered key.",
            rich_help_panel="Deployment",
        ),
    ] = False,
    config: Annotated[Path | None, config_option("Deployment")] = None,
    resume: Annotated[
        Path | None, resume_option("Continue the run of this folder with its settings.", "Deployment")
    ] = None,
) -> None:
    """Start SuperLink, server and devices as processes of this machine, run the federation, and stop them all.

    The same run as simulate, on the runtime that real machines use; docs/deployment.md says how to spread it.
    """
    from common.fleet import virtual_fleet
    from feddac.cli.display import print_result, result_console, show_progress
    from feddac.deployment.bundle import app_bundle
    from feddac.deployment.follow import run_to_the_end
    from feddac.deployment.local import LocalFederation
    from server.report.record import read_run

    if os.name != "posix":
        raise ConfigurationError("feddac up needs Linux or macOS; feddac simulate runs everywhere")
    with show_progress(Console(stderr=True)) as progress:
        whole, folder = prepare(settings, config, resume, progress)
    folder.close()  # the server process writes there
    absolute = replace(whole, run=replace(whole.run, out=str(folder.path.resolve())))
    end_in_order_when_asked()
    devices = virtual_fleet(whole.fleet, whole.federation.local_training)
    with run_ends_well(folder.path, "up"), LocalFederation(folder.path / "deployment", devices, tls, say) as federation:
        federation.wait_until_connected()
        bundle = app_bundle(absolute)
        status = run_to_the_end(federation.address, federation.root_certificates, bundle, say, federation.check)
        if not status.completed:
            raise FederationError(f"{status}; resume with: feddac up --resume {shlex.quote(str(folder.path))}")
    console = result_console()
    print_result(console, read_run(folder))
    console.print(
        f"Run folder: {folder.path}\nReport:     {folder.report_path}", soft_wrap=True, markup=False, highlight=False
    )


def end_in_order_when_asked() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, unless it was started to ignore them (nohup)."""
    on_signals((signal.SIGTERM, signal.SIGHUP), _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
