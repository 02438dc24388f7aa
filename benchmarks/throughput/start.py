"""What processes import: a device's for a handshake and a training, and a server's."""

import json
import resource
import subprocess
import sys

DEVICE = """
from flwr.app import Message

from common.architecture import Architecture
from common.config import Config
from common.handshake import HANDSHAKE, Hello
from common.messages import Task
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork
from simulation.engines import run_federation

config = Config.from_mapping({"method": "fedavg", "data": "digits", "partition": "iid"})
network = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 10, width=0.25))
weights = network.layout.flatten(network.build(0).state_dict())


def server(grid, context):
    node = list(grid.get_node_ids())[0]
    task = Task("fedavg", TRAIN, 1, network, TrainingOrder().to_mapping(), {"weights": weights})
    for message in (Message(Hello.mine().encode(), node, HANDSHAKE), Message(task.encode(), node, "train")):
        [reply] = grid.send_and_receive([message])
        assert not reply.has_error(), reply.error


run_federation("inline", server, "client.app:app", config.to_mapping(), 64)
"""


def cost_of(script: str) -> tuple[float, float]:
    """CPU seconds and peak MB of a Python process that runs `script`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024


if __name__ == "__main__":
    server, _ = cost_of("import server.app")
    bare, _ = cost_of("import torch, flwr.app, flwr.clientapp")
    device, megabytes = cost_of(DEVICE)
    print(
        json.dumps(
            {
                "importing torch and Flower alone, s": bare,
                "importing server.app, s": server,
                "a device's process: start, handshake, 22 images, s": device,
                "  its peak memory, MB": megabytes,
            }
        )
    )
