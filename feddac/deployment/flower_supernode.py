"""Flower's SuperNode in a process that ends when it has lost its connection, with exit code 1 and one line.

    python -m feddac.deployment.flower_supernode PARENT flower-supernode ARGUMENT...

Of itself it goes on without one. The thread that sends heartbeats ends with the first answer that it does not expect,
such as 500 while the SuperLink's disk is full, and the SuperLink takes the device to be offline from then on. Where the
main thread gives up, as at a certificate that has expired, the thread of the Runtime API keeps the process, which says
that it is healthy. It ends with its supervisor, the process PARENT.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from common.process import end_with, on_signals

STOP_SECONDS = 4.0
"""For an end in order, which tells the SuperLink: Flower's own force, after five, ends with exit code 0."""


class Watched:
    """Runs `main` on this, the main thread, and ends the process when that or any other thread has failed."""

    def __init__(self, main: Callable[[], object]) -> None:
        self._main = main
        self._leaving = False
        self._failed = False

    def leave(self) -> None:
        """Take it from now on that the process is about to end in order: what asks for that again changes nothing."""
        self._leaving = True

    def run(self) -> None:
        """Until the end of the process."""
        on_signals((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP), self._ask)
        threading.excepthook = self._thread_failed
        code: object = 1
        try:
            self._main()
            _say("the SuperNode has given up its connection; the lines above say why")
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
        own = 0 if code is None else code if isinstance(code, int) else 1
        _end(max(own, 1) if self._failed else own)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """Before Flower's own handlers are there, and again when they have begun their work.

        A signal that is sent twice, to every process and by the supervisor, must not cut short what the first began.
        """
        if number == signal.SIGHUP:
            signal.raise_signal(signal.SIGTERM)
        elif not self._leaving:
            self._leaving = True
            sys.exit(0)

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        if failed.exc_type is SystemExit:
            return
        threading.__excepthook__(failed)
        response = getattr(failed.exc_value, "response", None)
        if self._leaving or getattr(response, "status_code", None) == 401:  # where Flower ends the process itself
            return
        self._failed = True
        reason = str(failed.exc_value).partition("\n")[0]
        _say(f"the SuperNode has lost its connection: {failed.exc_type.__name__}: {reason:.300}")
        threading.Thread(target=_ask_and_force, daemon=True).start()


def _ask_and_force() -> None:
    time.sleep(0.5)  # the thread that failed must have ended, for Flower stops it otherwise
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    _end(1)


def _end(code: int) -> None:
    """End the process, whatever threads there are."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _say(what: str) -> None:
    print(f"Error: {what}", file=sys.stderr, flush=True)


def main() -> None:
    """Flower's SuperNode with the arguments of this process."""

    def flower() -> None:
        from flwr.supercore.exit import add_exit_handler
        from flwr.supernode.cli import flower_supernode

        add_exit_handler(watched.leave, run_before_force_exit=True)
        flower_supernode()

    end_with(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    watched = Watched(flower)
    watched.run()


if __name__ == "__main__":
    main()
