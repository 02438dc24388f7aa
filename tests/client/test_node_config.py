"""What is no key of a node configuration is refused: a misspelt bound would be no bound."""

import pytest

from client.identity import identify
from client.node_config import NODE_KEYS, check_node_config
from common.errors import ConfigurationError
from common.groups import FleetSettings


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("max-mem", "max-memory"),
        ("max_macs", "max-macs"),
        ("max-latency", "max-latency-ms"),
        ("devicename", "device-name"),
        ("partition", "partition-id"),
        ("local-dp-norm", "local-dp-clipping-norm"),
    ],
)
def test_a_misspelt_key_is_refused_and_the_nearest_one_is_named(wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown key of --node-config '{wrong}': did you mean '{right}'"):
        identify({"partition-id": 0, wrong: "60KB"}, FleetSettings())


def test_a_key_that_resembles_none_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"known keys are device-name, partition-id, .*, local-dp-delta"):
        identify({"partition-id": 0, "colour": "red"}, FleetSettings())


def test_every_key_is_taken() -> None:
    check_node_config(dict.fromkeys(NODE_KEYS, 0))
