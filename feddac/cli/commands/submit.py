"""`feddac submit`: start a run on a SuperLink that is up, and wait for its end."""

from pathlib import Path
from typing import Annotated, Any

import typer

from common.config import Config
from common.errors import ConfigurationError, FederationError
from feddac.cli.failures import is_ctrl_c, say
from feddac.cli.options import config_option
from feddac.endings import INTERRUPTED
from feddac.resolve import merge

EXAMPLES = """
Examples:
  feddac submit --superlink 127.0.0.1:8000 --devices 4 --out /var/lib/feddac/run
  feddac submit --superlink 127.0.0.1:8000 --root-certificates ca.crt --devices 4 --out /var/lib/feddac/run
"""


def submit(
    settings: dict[str, Any],
    superlink: Annotated[
        str, typer.Option(help="Address of the SuperLink.", metavar="HOST:PORT", rich_help_panel="Deployment")
    ] = "127.0.0.1:8000",
    root_certificates: Annotated[
        Path | None,
        typer.Option(
            help="Connect by TLS and trust these certificates (ca.crt).",
            metavar="FILE",
            rich_help_panel="Deployment",
        ),
    ] = None,
    config: Annotated[Path | None, config_option("Deployment")] = None,
) -> None:
    """Start a run on a SuperLink, show the server's log, and end with the run's own result.

    --out is required, and absolute: a folder of the server's machine. If it holds a run, that run is resumed.
    """
    from feddac.cli.display import print_result, result_console
    from feddac.deployment.bundle import app_bundle
    from feddac.deployment.control import Control
    from feddac.deployment.follow import run_to_the_end
    from server.report.record import read_run
    from server.run_folder import RunFolder

    whole = Config.from_mapping(merge(config, settings))
    out = whole.run.out
    if not Path(out).is_absolute():
        raise ConfigurationError(f"--out must be an absolute path on the server's machine, not {out!r}")
    with Control(superlink, root_certificates) as control:
        for line in control.expiring():
            say(f"warning: {line}")
    runs: list[int] = []

    def started(run: int) -> None:
        runs.append(run)
        say(f"run {run} is started")

    try:
        status = run_to_the_end(superlink, root_certificates, app_bundle(whole), say, started=started)
    except (Exception, KeyboardInterrupt) as error:
        if not is_ctrl_c(error):
            raise
        say(f"Interrupted; run {runs[-1]} goes on" if runs else "Interrupted; no run was started")
        raise typer.Exit(INTERRUPTED) from None
    if not status.completed:
        raise FederationError(f"{status}; submit it again with the same --out to resume it")
    console = result_console()
    if Path(out, "summary.json").exists():  # the server's folder can be seen from here
        print_result(console, read_run(RunFolder.open(out)))
    console.print(f"Run folder: {out}", soft_wrap=True, markup=False, highlight=False)
