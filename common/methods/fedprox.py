"""FedProx: FedAvg whose devices stay near what they were sent (Li et al. 2020, arXiv:1812.06127)."""

from dataclasses import dataclass

from common.methods.contract import Contract
from common.methods.fedavg import FedAvg, FedAvgSettings
from common.methods.training import TrainingOrder
from common.settings import Settings, keys_of, setting


@dataclass(frozen=True)
class FedProxSettings(Settings):
    """How strongly devices are held."""

    proximal_coefficient: float = setting(0.01, "Weight of fedprox's proximal term (mu in the paper).", minimum=0.0)


@dataclass(frozen=True)
class ProximalOrder(TrainingOrder, FedProxSettings):
    """A TrainingOrder with the proximal term's weight."""


class FedProx(Contract):
    """Step `train` with a ProximalOrder."""

    name = "fedprox"
    settings = FedProxSettings
    reads = FedAvg.reads | keys_of(FedAvgSettings)
    server = "server.methods.fedprox:FedProxServer"
    device = "client.methods.fedprox:STEPS"
