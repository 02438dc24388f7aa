"""The keys by which the owner of a device tells it what it is; docs/deployment.md says what each means."""

from collections.abc import Mapping

from common.bounds import BOUND_KEYS
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
    """Raise ConfigurationError for a key that nothing reads: a misspelt bound would be no bound."""
    check_known(node_config, NODE_KEYS, "key of --node-config")
