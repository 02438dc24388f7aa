"""The noise of local differential privacy: how strong it is on a device, and how far it moves what the server admits.

The Gaussian mechanism (Dwork and Roth 2014, theorem A.1): of a function whose values differ by at most its sensitivity,
noise of deviation sensitivity x sqrt(2 ln(1.25 / delta)) / epsilon on every value is (epsilon, delta)-private.
"""

import math

from common.groups import FederationSettings

LOCAL_DP_KEYS = ("local-dp-clipping-norm", "local-dp-epsilon", "local-dp-delta")
"""Its settings."""

NOISE_MARGIN = 3.0
"""Noise on p values of deviation sigma has norm sigma sqrt(p) but for a few in a hundred; thrice that never comes."""


def sensitivity(settings: FederationSettings) -> float:
    """How far two updates are apart at most that are each clipped to `local_dp_clipping_norm`."""
    return 2 * settings.local_dp_clipping_norm


def noise_deviation(settings: FederationSettings) -> float:
    """The standard deviation of the noise on every value; 0 where there is none."""
    return sensitivity(settings) * math.sqrt(2 * math.log(1.25 / settings.local_dp_delta)) / settings.local_dp_epsilon


def largest_private_update(settings: FederationSettings, size: int) -> float:
    """The largest Euclidean norm of a clipped update of `size` values with its noise; 0 where there is none."""
    return settings.local_dp_clipping_norm + NOISE_MARGIN * noise_deviation(settings) * math.sqrt(size)
