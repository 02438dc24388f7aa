"""What a device's process does not import: each of these takes as long as a small training, for every message."""

import subprocess
import sys

SCRIPT = """
import sys

from client.training import training_epochs
from common.architecture import Architecture
from common.config import Config
from common.handshake import HANDSHAKE, DeviceReport, Hello
from common.messages import Result, Task
from common.methods import contract_of
from common.methods.training import TRAIN, TrainingOrder, weights_spec
from common.models.description import BaseNetwork
from flwr.app import Message
from simulation.engines import run_federation

config = Config.from_mapping({"method": "fedavg", "data": "digits", "partition": "iid"})
network = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 10, width=0.25))
weights = network.layout.flatten(network.build(0).state_dict())


def server(grid, context):
    node = grid.get_node_ids()[0]
    task = Task("fedavg", TRAIN, 1, network, TrainingOrder().to_mapping(), {"weights": weights})
    hello, work = Message(Hello.mine().encode(), node, HANDSHAKE), Message(task.encode(), node, "train")
    [report] = grid.send_and_receive([hello])
    [reply] = grid.send_and_receive([work])
    samples = DeviceReport.decode(report.content).samples
    Result.decode(reply.content, {"weights": weights_spec(network.layout, weights)}, samples)


run_federation("inline", server, "client.app:app", config.to_mapping(), 8)
print(*sys.modules)
"""

HEAVY = (
    *("torch._dynamo", "torch.onnx", "sympy", "triton", "pandas", "scipy", "sklearn", "pyarrow", "datasets"),
    *("flwr_datasets", "matplotlib", "seaborn", "tensorboard", "onnx", "ray", "jinja2"),
)


def test_a_handshake_and_a_training_import_nothing_heavy_but_torch_and_flower() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"torch", "flwr.app", "client.app"} <= loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_the_server_app_draws_nothing_before_there_is_something_to_draw() -> None:
    script = "import sys, server.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert [name for name in ("matplotlib", "torch._dynamo", "pandas", "flwr_datasets") if name in loaded] == []
