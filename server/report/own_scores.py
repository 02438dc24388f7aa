"""What devices score on images of their own, which nobody trained on, beside the server's test images."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from common.wording import number_of

Event: TypeAlias = Mapping[str, Any]

OWN_EVENT = "device_evaluation"
"""The event of one device's score."""


@dataclass(frozen=True)
class OwnScore:
    """A device's cohort, the accuracy (0 to 1) of its model on its own held-out images, and how many these are."""

    cohort: str
    accuracy: float
    images: int


def own_scores(events: Iterable[Event], number: int) -> dict[str, OwnScore]:
    """By device, the scores after round `number`; a device that holds no images out, or did not answer, has none.

    `events` are OWN_EVENTs; of an earlier round they say nothing about the models of this one.
    """
    found = {}
    for event in events:
        accuracy, images = number_of(event.get("own_accuracy")), number_of(event.get("own_images"))
        if event.get("round") == number and math.isfinite(accuracy) and images >= 1:
            found[str(event.get("device"))] = OwnScore(str(event.get("cohort")), accuracy, int(images))
    return found


def mean_own(scores: Iterable[OwnScore]) -> float:
    """The mean over devices, each counting once as in the test accuracy; NaN without any."""
    known = [score.accuracy for score in scores]
    return sum(known) / len(known) if known else math.nan


def on_devices(rounds: Iterable[Event], number: int) -> dict[str, float]:
    """By cohort, the test accuracy of the network that its devices run alone, where it is not the one that is scored.

    `rounds` are events of this name; only FedGKT's say it, whose scored network is the pair of device and server.
    """
    found = {}
    for event in rounds:
        accuracy = number_of(event.get("device_network_accuracy"))
        if event.get("round") == number and math.isfinite(accuracy):
            found[str(event.get("cohort"))] = accuracy
    return found
