"""The parent of a device's two processes, Flower's SuperNode and the warm one: where either fails, it ends both.

Whoever starts `feddac supernode` again when it ends (a loop, systemd, compose) can then rely on the end: exit code 1
and one line. Without a parent, a device whose warm process is gone is connected and answers nothing, and a SuperNode
that the SuperLink turns away ends as if it had been asked to. It imports little, for it stays as long as the device.

    python -m feddac.deployment.supervisor "HOST:PORT" ARGUMENT...

where a warm process, if any, is to serve the SuperNode's Runtime API at HOST:PORT; ARGUMENTs are flower-supernode's.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType

from common.process import on_signals
from feddac.deployment.own_home import OwnHome

SETTLE_SECONDS = 0.5
"""After the end of a process: a signal to all may reach this one later than that."""
FORWARD_SECONDS = 0.3
"""Before a signal is passed on, which most senders (a terminal, systemd) have sent to the SuperNode too."""
GRACE_SECONDS = 8.0
"""For an end in order; Flower takes five at most, and Docker kills after ten."""
ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

TURNED_AWAY = (
    "the SuperNode ended though nothing on this machine asked it to: the SuperLink turned it away. Does this machine's "
    "clock agree with the SuperLink's (at most 5 s fast or 305 s slow), is the device still registered, and was the "
    "SuperLink started with the --database it had?"
)


class Supervisor:
    """Runs the command `supernode`, and `warm` beside it, until one of them ends or a signal asks for it."""

    def __init__(
        self, supernode: Sequence[str], warm: Sequence[str] | None, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._commands = {"supernode": supernode, **({} if warm is None else {"warm": warm})}
        self._environment = environment
        self._running: dict[int, str] = {}
        self._asked = False
        self._ending = False

    def run(self) -> int:
        """Exit code: the SuperNode's if a signal asked for the end, or if it failed by itself; else 1."""
        on_signals(ASKING, self._ask)
        signal.signal(signal.SIGALRM, self._press)
        for name, command in self._commands.items():
            self._running[os.posix_spawn(command[0], list(command), self._environment)] = name
        code: int | None = None
        while self._running:
            process, status = os.waitpid(-1, 0)
            if process not in self._running:  # as process 1 of a container it has others too
                continue
            name = self._running.pop(process)
            ended = os.waitstatus_to_exitcode(status)
            if code is None:
                if not self._asked:
                    time.sleep(SETTLE_SECONDS)
                code = self._judge(name, ended)
                if not self._asked:  # else the others are asked by the timer
                    self._end()
            elif name == "supernode" and self._asked:
                code = _exit_code(ended)
        return code or 0

    def _judge(self, name: str, ended: int) -> int:
        """What the first end means, said in one line unless the process has said it itself."""
        if self._asked:
            return _exit_code(ended)
        if name == "warm":
            _say(f"the process that answers messages {_how(ended)}; the SuperNode, deaf without it, is ended too")
            return 1
        if ended == 0:
            _say(TURNED_AWAY)
        elif ended < 0:
            _say(f"the SuperNode {_how(ended)}")
        return max(ended, 1)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            signal.setitimer(signal.ITIMER_REAL, FORWARD_SECONDS)

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self._ending:
            self._send(signal.SIGKILL)
        else:
            self._end()

    def _end(self) -> None:
        self._ending = True
        self._send(signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def _send(self, number: signal.Signals) -> None:
        for process in list(self._running):
            with suppress(ProcessLookupError):
                os.kill(process, number)


def _exit_code(ended: int) -> int:
    """As a shell gives it: 128 and the number of the signal that killed a process."""
    return ended if ended >= 0 else 128 - ended


def _how(ended: int) -> str:
    if ended == -signal.SIGKILL:
        return "was killed (signal 9), as the system does for want of memory"
    return f"was killed by signal {-ended}" if ended < 0 else f"ended with exit code {ended}"


def _say(what: str) -> None:
    print(f"Error: {what}", file=sys.stderr, flush=True)


def main(warm_address: str, arguments: Sequence[str]) -> int:
    """Run Flower's SuperNode with these arguments, and a warm process if there is an address for it."""
    python, own = [sys.executable, "-P", "-m"], str(os.getpid())
    warm = [*python, "feddac.deployment.warm", warm_address, own] if warm_address else None
    try:
        home = OwnHome()
    except OSError as error:
        _say(f"cannot write in FLWR_HOME: {error.strerror} ({error.filename})")
        return 1
    with home:
        environment = {**os.environ, "FLWR_HOME": str(home.path)}
        supernode = [*python, "feddac.deployment.flower_supernode", own, "flower-supernode", *arguments]
        return Supervisor(supernode, warm, environment).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
