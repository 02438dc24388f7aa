"""HeteroFL: nested slices of one network, averaged where they overlap (Diao et al. 2021, arXiv:2010.01264)."""

from dataclasses import dataclass

from common.methods.contract import AVERAGED, PRETRAINED, SEVERAL_COHORTS, Contract
from common.methods.training import TrainingOrder
from common.settings import setting


@dataclass(frozen=True)
class ScaledOrder(TrainingOrder):
    """A TrainingOrder with what convolutions' outputs are divided by while the device trains (section 3)."""

    activation_scale: float = setting(1.0, "Share of the channels that the slice keeps.", above=0.0)


class HeteroFL(Contract):
    """Step `train` with a ScaledOrder."""

    name = "heterofl"
    reads = AVERAGED | PRETRAINED | SEVERAL_COHORTS | {"recipe", "fine-tune-epochs", "joint-epochs"}
    server = "server.methods.heterofl:HeteroFLServer"
    device = "client.methods.heterofl:STEPS"
