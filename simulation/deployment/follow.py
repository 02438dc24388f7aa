"""Watch a run on a SuperLink until it is over."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.errors import FederationError
from simulation.deployment.control import Control, RunStatus
from simulation.deployment.log_lines import LogLines

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
_LAST_LINES_SECONDS = 10.0


def follow(
    address: str,
    root_certificates: Path | None,
    run_id: int,
    show: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> RunStatus:
    """Show the run's log line by line until the run is finished, and return how it ended.

    `check` is called about once per second and may raise. A SuperLink that cannot be reached for PATIENCE_SECONDS,
    which is longer than a restart takes, is an error (FederationError).
    """
    over = threading.Event()
    view = LogLines(show)
    log = threading.Thread(target=_show_log, args=(address, root_certificates, run_id, view, over), daemon=True)
    log.start()
    last_contact = time.monotonic()
    try:
        with Control(address, root_certificates) as control:
            while True:
                check()
                try:
                    status = control.status(run_id)
                    last_contact = time.monotonic()
                    if status.finished:
                        log.join(_LAST_LINES_SECONDS)
                        return status
                except FederationError:
                    if time.monotonic() - last_contact > PATIENCE_SECONDS:
                        raise
                time.sleep(POLL_SECONDS)
    finally:
        over.set()


def _show_log(
    address: str, root_certificates: Path | None, run_id: int, show: Callable[[str], None], over: threading.Event
) -> None:
    """Stream until the log ends; a connection that breaks is made again and goes on where it was."""
    after = 0.0
    with Control(address, root_certificates) as control:
        while not over.is_set():
            with suppress(FederationError):
                for latest, lines in control.log(run_id, after):
                    after = latest
                    for line in lines:
                        if over.is_set():
                            return
                        show(line)
                return
            time.sleep(POLL_SECONDS)
