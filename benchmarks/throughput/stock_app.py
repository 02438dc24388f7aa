"""A federation of Flower's stock classes on Ray: FedAvg of a small network, as its documentation builds it.

python benchmarks/throughput/stock_app.py DEVICES ROUNDS
"""

import sys

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn
from torch.nn import functional

IMAGES = 2  # that a device has
HIDDEN = 64

client = ClientApp()
server = ServerApp()


def network() -> nn.Module:
    """For images of 4x4 pixels and ten classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))


@client.train()
def train(message: Message, context: Context) -> Message:
    """One step on the device's images."""
    module = network()
    module.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    images, labels = torch.zeros(IMAGES, 1, 4, 4), torch.arange(IMAGES)
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    loss = functional.cross_entropy(module(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    metrics = MetricRecord({"train_loss": loss.item(), "num-examples": IMAGES})
    return Message(RecordDict({"arrays": ArrayRecord(module.state_dict()), "metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """The rounds."""
    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0)
    strategy.start(grid, ArrayRecord(network().state_dict()), int(sys.argv[2]), train_config=ConfigRecord({"lr": 0.01}))


if __name__ == "__main__":
    run_simulation(server, client, int(sys.argv[1]), backend_config={"client_resources": {"num_cpus": 1}})
