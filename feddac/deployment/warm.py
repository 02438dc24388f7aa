"""A process that has imported what a device needs, and answers each message of its SuperNode in a copy of itself.

Flower starts a Python interpreter for every message, which imports PyTorch anew: seconds of processor time, for a
training that may take less. Under Flower's isolation mode `process` who runs client apps is left to us. A copy (fork)
shares the memory of the original until it writes there, is as isolated as a new process, and ends after its message.
The code of the run is not imported beforehand: it comes with the run, and may be another version.

    python -m feddac.deployment.warm HOST:PORT PARENT

It ends with its SuperNode, the process PARENT, also with one that has ended before this line was read. What takes
seconds to import is therefore imported within functions, when the parent is watched already.
"""

import importlib
import multiprocessing
import os
import sys
import time
from contextlib import suppress
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
    copies = multiprocessing.get_context("fork")
    request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    while True:
        multiprocessing.active_children()  # collects those that have ended
        with suppress(httpx.HTTPError):  # it does not listen yet, or is about to end
            answer = client.AcquireTask(request)
            if answer.HasField("task") and answer.token:
                token, own = answer.token, os.getpid()
                given = {"runtime_api_address": address, "token": token, "insecure": True, "parent_pid": own}
                copies.Process(target=run_clientapp, kwargs=given).start()
        time.sleep(POLL_SECONDS)


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
    warm_up()
    serve(sys.argv[1])
