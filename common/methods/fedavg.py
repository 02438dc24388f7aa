"""FedAvg: one model for all devices (McMahan et al. 2017, arXiv:1602.05629)."""

from dataclasses import dataclass

from common.methods.contract import AVERAGED, PRETRAINED, Contract
from common.settings import Settings, setting


@dataclass(frozen=True)
class FedAvgSettings(Settings):
    """Which model it is."""

    fedavg_model: str = setting(
        "smallest",
        "The one model of fedavg, fedprox and autoflip: the largest that every device can hold (smallest), the base "
        "network whatever the budgets (largest, an oracle), or the base network on those devices alone that can hold "
        "it (drop-weak).",
        choices=("smallest", "largest", "drop-weak"),
    )


class FedAvg(Contract):
    """Step `train` with a TrainingOrder."""

    name = "fedavg"
    settings = FedAvgSettings
    reads = AVERAGED | PRETRAINED
    server = "server.methods.fedavg:FedAvgServer"
    device = "client.methods.fedavg:STEPS"
