"""A process that has imported what a device needs, and answers each message of its SuperNode in a copy of itself.

Flower starts a Python interpreter for every message, which imports PyTorch anew: seconds of processor time, for a
training that may take less. Under Flower's isolation mode `process` who runs client apps is left to us. A copy (fork)
shares the memory of the original until it writes there, is as isolated as a new process, and ends after its message.
The code of the run is not imported beforehand: it comes with the run, and may be another version.

    python -m feddac.deployment.warm HOST:PORT PARENT

It ends with its supervisor, the process PARENT, also with one that has ended before this line was read. What takes
seconds to import is therefore imported within functions, when the parent is watched already.
"""

import importlib
import multiprocessing
import os
import shutil
import sys
import time
from contextlib import suppress
from multiprocessing.context import ForkProcess
from typing import NoReturn

from common.process import end_with
from simulation.environment import prefer_own_code

POLL_SECONDS = 0.2


def serve(address: str) -> NoReturn:
    """Answer the messages of the SuperNode whose Runtime API listens at `address`, until this process is ended."""
    import httpx
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient
    from flwr.supernode.runtime.run_clientapp import run_clientapp

    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,  # within this machine, as for the processes that Flower starts itself
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec")],
    )
    fork = multiprocessing.get_context("fork")
    copies: list[ForkProcess] = []
    request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    while True:
        copies = _still_running(copies)
        with suppress(httpx.HTTPError):  # it does not listen yet, or is about to end
            answer = client.AcquireTask(request)
            if answer.HasField("task") and answer.token:
                token, own = answer.token, os.getpid()
                given = {"runtime_api_address": address, "token": token, "insecure": True, "parent_pid": own}
                copies.append(fork.Process(target=run_clientapp, kwargs=given))
                copies[-1].start()
        time.sleep(POLL_SECONDS)


def _still_running(copies: list[ForkProcess]) -> list[ForkProcess]:
    """Those of them; where one has failed and none is left, what was unpacked for them is removed.

    It may have failed in unpacking, for want of room or memory, and Flower would take what is there for the whole app.
    """
    from flwr.common.constant import APP_DIR
    from flwr.supercore.utils import get_flwr_home

    running = [copy for copy in copies if copy.exitcode is None]
    if not running and any(copy.exitcode for copy in copies):
        shutil.rmtree(get_flwr_home() / APP_DIR, ignore_errors=True)
    return running


def warm_up() -> None:
    """Import all that our client app imports, and forget our own packages again."""
    from feddac.deployment.bundle import PACKAGES

    prefer_own_code()
    importlib.import_module("client.app")
    for name in list(sys.modules):
        if name.partition(".")[0] in PACKAGES:
            del sys.modules[name]


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    with suppress(KeyboardInterrupt):  # which a terminal sends to every process; the supervisor ends this one
        warm_up()
        serve(sys.argv[1])
