"""Start a run on a SuperLink, watch it until it is over, and start it again if an outage has cut it off."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.errors import FederationError
from feddac.deployment.control import Control, RunStatus
from feddac.deployment.log_lines import LogLines, unseen

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 600.0
RESUMPTIONS = 5
PENDING_SECONDS = 20.0
_SAY_AFTER_SECONDS = 10.0
_LAST_LINES_SECONDS = 10.0
_HAND_OVER_SECONDS = 15.0

_CUT_OFF = "No heartbeat received"
"""Flower's words for a server app that did not reach the SuperLink for a minute, or the other way round."""

_STILL_THERE = "is in use by process"
"""Ours (`server.run_lock`), where that server app has not noticed yet that its run is over."""


def run_to_the_end(
    address: str,
    root_certificates: Path | None,
    bundle: bytes,
    show: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
    started: Callable[[int], None] = lambda run: None,
) -> RunStatus:
    """Start the app `bundle` as a run, show its log, and return how it ended; `started` gets the id of each run.

    A run that Flower has given up because of an outage (SuperLink away, server paused) is started again, which resumes
    it after its last completed round: up to RESUMPTIONS times.
    """
    cut_off = 0
    while True:
        with Control(address, root_certificates) as control:
            run = control.start_run(bundle)
        started(run)
        status = follow(address, root_certificates, run, show, check)
        lost = _CUT_OFF in status.details
        if not (lost or (cut_off and _STILL_THERE in status.details)) or cut_off == RESUMPTIONS:
            return status
        cut_off += 1
        show(f"warning: run {run} was cut off by an outage; it is started again and goes on after its last round")
        time.sleep(_HAND_OVER_SECONDS)


def follow(
    address: str,
    root_certificates: Path | None,
    run_id: int,
    show: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> RunStatus:
    """Show the run's log line by line until the run is finished, and return how it ended.

    `check` is called about once per second and may raise. A SuperLink that cannot be reached for PATIENCE_SECONDS is an
    error (FederationError). A run that nobody has begun with PENDING_SECONDS later is told of once.
    """
    over = threading.Event()
    view = LogLines(show)
    log = threading.Thread(target=_show_log, args=(address, root_certificates, run_id, view, over), daemon=True)
    log.start()
    began = last_contact = time.monotonic()
    told = told_pending = False
    try:
        with Control(address, root_certificates) as control:
            while True:
                check()
                try:
                    status = control.status(run_id)
                    last_contact, told = time.monotonic(), False
                    if status.finished:
                        log.join(_LAST_LINES_SECONDS)
                        return status
                    if status.stage == "pending" and not told_pending and last_contact - began > PENDING_SECONDS:
                        told_pending = True
                        show(
                            f"warning: run {run_id} still waits: no process runs server apps. Is flower-superexec "
                            f"started, with the same secret? (flwr stop {run_id} deployment ends the run, see "
                            "docs/deployment.md)"
                        )
                except FederationError:
                    silent = time.monotonic() - last_contact
                    if silent > PATIENCE_SECONDS:
                        raise
                    if silent > _SAY_AFTER_SECONDS and not told:
                        told = True
                        show(f"warning: the SuperLink does not answer; waiting up to {PATIENCE_SECONDS / 60:g} minutes")
                time.sleep(POLL_SECONDS)
    finally:
        over.set()


def _show_log(
    address: str, root_certificates: Path | None, run_id: int, show: Callable[[str], None], over: threading.Event
) -> None:
    """Stream until the log ends; a connection that breaks is made again and goes on where it was."""
    after = 0.0
    seen: list[str] = []
    with Control(address, root_certificates) as control:
        while not over.is_set():
            with suppress(FederationError):
                for latest, lines in control.log(run_id, after):
                    after = latest
                    for line in lines:
                        if over.is_set():
                            return
                        show(line)
                        seen.append(line)
                whole = [line for _, lines in control.log(run_id) for line in lines]
                for line in unseen(seen, whole):
                    show(line)
                return
            time.sleep(POLL_SECONDS)
