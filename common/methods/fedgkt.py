"""FedGKT: small networks on the devices, a large one on the server, which teach each other (arXiv:2007.14513).

He, Annavaram and Avestimehr 2020. A device trains a stem and two blocks with a classifier of its own, and sends what
its stem makes of every image, its logits and the labels. The server trains a deep network on these, and sends back its
logits for every image, which the device learns from in the next round. No weights are averaged.
"""

import re
from dataclasses import dataclass

from common.arrays import ArraySpec
from common.budget import OPTIMIZERS
from common.errors import ConfigurationError
from common.groups import DataSettings, FederationSettings, FleetSettings, RunSettings
from common.local_dp import LOCAL_DP_KEYS
from common.methods.contract import PRETRAINED, Contract
from common.methods.training import TrainingOrder
from common.settings import Settings, keys_of, setting

EXTRACT = "extract"
"""The step's name."""
IDS, FEATURES, LOGITS, LABELS = "ids", "features", "logits", "labels"
"""Arrays with a row per image: its position among the device's images, and what the device says of it.

A task has IDS and LOGITS, the server's answers to what the device sent last; there are none before the first.
"""

LARGEST_FEATURE = 60_000.0
"""Features are cut at this, which float16 can hold; batch norm keeps those of any sane stem below a hundred."""
LARGEST_LOGIT = 1e4
TYPES = {"float32": "<f4", "float16": "<f2"}
SCHEDULE = r"[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}@[1-9][0-9]{0,5})*"


@dataclass(frozen=True)
class Transfer(Settings):
    """How two networks teach each other, and how features travel."""

    fedgkt_temperature: float = setting(3.0, "What fedgkt's logits are divided by where one learns another's.", above=0)
    fedgkt_alpha: float = setting(
        1.0,
        "Weight of what fedgkt's networks learn from each other beside the labels; 0: no distillation.",
        minimum=0.0,
    )
    fedgkt_feature_type: str = setting(
        "float32", "Type in which fedgkt's features travel and are kept; float16 halves them.", choices=tuple(TYPES)
    )
    fedgkt_feature_clip: float = setting(
        0.0, "Largest value of fedgkt's features, larger ones are cut; 0 cuts none.", minimum=0.0, maximum=6e4
    )

    @property
    def largest_feature(self) -> float:
        """No feature is larger than this when it is sent."""
        return self.fedgkt_feature_clip or LARGEST_FEATURE


@dataclass(frozen=True)
class FedGKTSettings(Transfer):
    """The server's network, and how it trains."""

    fedgkt_server: str = setting(
        "resnet56",
        "Bottleneck ResNet whose stem fedgkt's devices have and whose rest is the server's.",
        choices=("resnet11", "resnet29", "resnet56", "resnet110"),
    )
    fedgkt_server_epochs: str = setting(
        "20",
        "Epochs fedgkt's server trains in a round, and from which round on other numbers: 20,10@31 is 20, and 10 from "
        "round 31.",
        pattern=SCHEDULE,
    )
    fedgkt_server_batch_size: int = setting(256, "Batch size of fedgkt's server.", minimum=2)
    fedgkt_server_optimizer: str = setting(
        "amsgrad",
        "Optimizer of fedgkt's server, with the devices' momentum and weight decay.",
        choices=tuple(OPTIMIZERS),
    )
    fedgkt_server_learning_rate: float = setting(0.001, "Learning rate of fedgkt's server.", above=0.0)
    fedgkt_score: str = setting(
        "pair",
        "Whose accuracy a run of fedgkt has: the pair's, a device's stem below the server's network, as published, or "
        "that of the small network, which a device can use alone.",
        choices=("pair", "device"),
    )
    fedgkt_server_distillation: bool = setting(
        True, "Whether fedgkt's server learns the devices' logits too, not only their labels."
    )


@dataclass(frozen=True)
class TransferOrder(TrainingOrder, Transfer):
    """A TrainingOrder with how to learn from the server and what to send."""


def epochs_in(schedule: str, number: int) -> int:
    """The server's epochs in round `number`; raises ConfigurationError if the rounds do not ascend.

    >>> [epochs_in("20,15@21,2@30", number) for number in (1, 20, 21, 29, 30, 99)]
    [20, 20, 15, 15, 2, 2]
    """
    parts = [re.split("@", part) for part in schedule.split(",")]
    steps = [(int(part[1]) if len(part) > 1 else 1, int(part[0])) for part in parts]
    starts = [start for start, _ in steps]
    if starts != sorted(set(starts)):
        raise ConfigurationError(f"the rounds of fedgkt-server-epochs must ascend, those of {schedule} do not")
    return [epochs for start, epochs in steps if start <= number][-1]


def row_specs(features: tuple[int, ...], classes: int, settings: Transfer) -> dict[str, ArraySpec]:
    """What a device says of its images, beside its weights; `features` is the shape (C, H, W) of one image's."""
    return {
        IDS: ArraySpec("<i4", (None,), sample_ids=True),
        FEATURES: ArraySpec(TYPES[settings.fedgkt_feature_type], (None, *features), 0.0, settings.largest_feature),
        LOGITS: ArraySpec("<f4", (None, classes), -LARGEST_LOGIT, LARGEST_LOGIT),
        LABELS: ArraySpec("<i4", (None,), 0, classes - 1),
    }


class FedGKT(Contract):
    """Step `extract` with a TransferOrder; the networks are those of `common.models.bottleneck`."""

    name = "fedgkt"
    settings = FedGKTSettings
    reads = (
        keys_of(DataSettings, FleetSettings, FederationSettings, RunSettings)
        .union(("method",), PRETRAINED)
        .difference(
            # every device is a cohort of its own, and nothing is averaged
            ("max-cohorts", "fraction", "min-devices", "robust-aggregation", "trim-share", "clip-norm"),
            ("max-device-share", *LOCAL_DP_KEYS),
        )
    )
    server = "server.methods.fedgkt:FedGKTServer"
    device = "client.methods.fedgkt:STEPS"
