"""Evaluation on the devices, which is the same for every method: the order that travels."""

from dataclasses import dataclass

from common.settings import Settings, setting

EVALUATE = "evaluate"
"""The step's name."""


@dataclass(frozen=True)
class EvaluationOrder(Settings):
    """How a device scores the network it was sent on the images it holds out."""

    batch_size: int = setting(256, "Batch size.", minimum=1)
