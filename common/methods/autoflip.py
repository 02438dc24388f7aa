"""AutoFLIP: prune what no device moved while all explored their loss (Interno et al. 2024, arXiv:2405.10271)."""

from dataclasses import dataclass

from common.local_dp import LOCAL_DP_KEYS
from common.methods.contract import Contract
from common.methods.fedavg import FedAvg, FedAvgSettings
from common.methods.training import TrainingOrder
from common.settings import Settings, keys_of, setting

EXPLORE = "explore"
SPARSE = "train-sparse"
"""The names of the steps beside `train`: exploration, and training of a network with a mask."""

DISPLACEMENT, EPOCHS = "displacement", "epochs"
"""The arrays of an exploration's answer: how far each weight moved, squared, and the passes that it took."""

VALUES, MASK = "values", "mask"
"""The arrays of sparse weights: see `common.sparse`."""


@dataclass(frozen=True)
class AutoFLIPSettings(Settings):
    """How devices explore, and what is removed for what they find."""

    autoflip_mode: str = setting(
        "unstructured",
        "What autoflip removes: single weights, which become zero and are not sent (unstructured, the published "
        "program); whole channels, so that the network costs less (structured); or half of it as channels and the rest "
        "as single weights (hybrid).",
        choices=("unstructured", "structured", "hybrid"),
    )
    autoflip_threshold: float = setting(
        0.3, "Share of the parameters that autoflip removes: those of the lowest guidance.", minimum=0.0, maximum=0.95
    )
    autoflip_guidance: str = setting(
        "exploration",
        "What guides the removal: how far devices move each weight when they explore, or nothing (random: no device "
        "explores, the baseline).",
        choices=("exploration", "random"),
    )
    autoflip_explorers: float = setting(1.0, "Share of the devices that explore.", above=0.0, maximum=1.0)
    autoflip_exploration_epochs: int = setting(20, "Most epochs that a device explores.", minimum=1)
    autoflip_patience: int = setting(
        5, "A device ends its exploration after this many epochs without a lower training loss.", minimum=1
    )
    autoflip_normalisation: str = setting(
        "min-max",
        "How guidance is made comparable between tensors: least to 0 and greatest to 1 (min-max), or median to 0 and "
        "interquartile range to 1 (robust).",
        choices=("min-max", "robust"),
    )
    autoflip_server_momentum: float = setting(
        0.9,
        "Momentum of the server's update (beta of the published program); 0 is the plain mean.",
        minimum=0.0,
        maximum=0.999,
    )


@dataclass(frozen=True)
class ExplorationOrder(TrainingOrder):
    """A TrainingOrder whose epochs are the most there may be."""

    patience: int = setting(5, "Epochs without a lower loss that end the exploration.", minimum=1)


class AutoFLIP(Contract):
    """Step `explore` with an ExplorationOrder, then `train` or `train-sparse` with a TrainingOrder.

    Devices send more than weights, or fewer, so local differential privacy of whole weights does not apply.
    """

    name = "autoflip"
    settings = AutoFLIPSettings
    reads = (FedAvg.reads | keys_of(FedAvgSettings) | {"channel-floor"}).difference(LOCAL_DP_KEYS)
    server = "server.methods.autoflip:AutoFLIPServer"
    device = "client.methods.autoflip:STEPS"
