"""The keys by which the owner of a device tells it what it is; docs/deployment.md says what each means."""

from collections.abc import Mapping

from common.bounds import BOUND_KEYS
from common.errors import ConfigurationError
from common.local_dp import LOCAL_DP_KEYS
from common.settings import Scalar, check_known

LATENCY = "max-latency-ms"

NODE_KEYS = (
    "device-name",
    "partition-id",
    "num-partitions",  # as Flower gives it to every simulated node; the run says how many devices there are
    *(f"max-{key}" for key in BOUND_KEYS),
    LATENCY,
    "profile",
    "data",
    "data-path",
    "data-folder",
    "model",
    *LOCAL_DP_KEYS,  # the noise that a device adds of its own accord, whatever the run's settings say
)


def check_node_config(node_config: Mapping[str, Scalar]) -> None:
    """Raise ConfigurationError for a key that nothing reads: a misspelt bound would be no bound.

    So are the parameters of a noise that is not switched on, whose owner believes that the device adds it.
    """
    check_known(node_config, NODE_KEYS, "key of --node-config")
    switch, *others = LOCAL_DP_KEYS
    if not node_config.get(switch):
        for key in others:
            if key in node_config:
                raise ConfigurationError(
                    f"{key} in --node-config adds no noise without {switch} above 0 beside it: give both, or neither"
                )
