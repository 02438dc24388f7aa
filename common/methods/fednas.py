"""FedNAS: devices search for cells together, then train what they found (He et al. 2020, arXiv:2004.08546)."""

from dataclasses import dataclass
from typing import ClassVar

from common.groups import ModelSettings
from common.methods.contract import AVERAGED, Contract, Limits
from common.methods.training import PASSES, TrainingOrder
from common.settings import Settings, keys_of, setting

SEARCH = "search"
"""The step's name in the first stage; that of the second is `train`."""

ALPHAS = "alphas"
"""The supernet's architecture parameters, a tensor among its weights."""

LARGEST_ALPHA = 20.0
"""No search comes this far: from a distance of 17 on, a softmax in float32 knows no more than one of its entries."""

ALPHA_PASSES = 2
"""A gradient of the architecture parameters alone: forward, and the gradient of the activations."""


@dataclass(frozen=True)
class CellTraining(Settings):
    """How devices train cells; what is not said here they do as all methods do."""

    fednas_lowest_learning_rate: float = setting(
        0.001,
        "From learning-rate the rate falls towards this along a cosine over a round's local epochs (fednas).",
        minimum=0.0,
    )
    fednas_architecture_learning_rate: float = setting(
        3e-4, "Learning rate of the architecture parameters, by Adam (fednas).", above=0.0
    )
    fednas_architecture_weight_decay: float = setting(
        1e-3, "Weight decay of the architecture parameters (fednas).", minimum=0.0
    )
    fednas_training_coefficient: float = setting(
        1.0, "Weight of the training half's loss in the architecture step (fednas); 0 is DARTS.", minimum=0.0
    )
    fednas_validation_coefficient: float = setting(
        1.0, "Weight of the validation half's loss in the architecture step (fednas).", minimum=0.0
    )
    fednas_drop_path: float = setting(
        0.0,
        "Probability that an operation of the found cells is left out for an image in training (fednas).",
        minimum=0.0,
        maximum=0.95,
    )
    fednas_auxiliary_coefficient: float = setting(
        0.0,
        "Weight of the loss of an auxiliary head in the middle of the found network; 0 has none (fednas).",
        minimum=0.0,
    )


@dataclass(frozen=True)
class FedNASSettings(CellTraining):
    """The cells, and when the search is over."""

    fednas_search_rounds: int = setting(
        5, "Rounds of search before those in which what was found is trained (fednas).", minimum=1
    )
    fednas_warmup_rounds: int = setting(
        0,
        "Rounds at the beginning of the search in which weights alone are trained, so that operations with weights are "
        "not judged by random ones (fednas).",
        minimum=0,
    )
    fednas_search_epochs: int = setting(
        0,
        "Epochs a device searches per round (fednas); 0 takes local-epochs, as the rounds after the search do.",
        minimum=0,
    )
    fednas_genotype: str = setting(
        "", "Train these cells and search for none: FedNAS_V1, DARTS_V2, or a genotype file of an earlier run (fednas)."
    )
    fednas_channels: int = setting(16, "Channels of the first cell (fednas).", minimum=1, maximum=256)
    fednas_cells: int = setting(8, "Cells of the supernet and of the found network (fednas).", minimum=3, maximum=40)


@dataclass(frozen=True)
class CellOrder(TrainingOrder, CellTraining):
    """What a device is told in either stage."""


def search_macs(network_macs: int, order: CellOrder) -> int:
    """Multiply-accumulates per image of the device that its search takes.

    Half of the images are stepped on: each costs a training step, a gradient of the architecture parameters, and
    another such gradient on an image of the other half.
    """
    coefficients = (order.fednas_training_coefficient, order.fednas_validation_coefficient)
    passes = PASSES + ALPHA_PASSES * sum(one > 0 for one in coefficients)
    return passes * network_macs * order.epochs // 2


class FedNAS(Contract):
    """Step `search` on the supernet, then step `train` on the network of the found cells, each with a CellOrder."""

    name = "fednas"
    settings = FedNASSettings
    reads = AVERAGED - keys_of(ModelSettings) - {"initial-weights", "patience"}
    weight_limits: ClassVar[Limits] = {**Contract.weight_limits, ALPHAS: (-LARGEST_ALPHA, LARGEST_ALPHA)}
    server = "server.methods.fednas:FedNASServer"
    device = "client.methods.fednas:STEPS"
