"""What is no key of a node configuration is refused: a misspelt bound would be no bound."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from PIL import Image

from client.data import device_data
from client.identity import Identity, identify, own_model
from client.node_config import NODE_KEYS, check_node_config
from client.privacy import local_dp
from common.bounds import BOUND_KEYS
from common.config import Config
from common.errors import ConfigurationError, DataError
from common.groups import FleetSettings, ModelSettings
from common.settings import Scalar

ROOT = Path(__file__).resolve().parents[2]


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


def told(value: str, key: str, **others: Scalar) -> Identity:
    """Whom a device takes itself for whose owner gave it the key."""
    return identify({key: value, **{name.replace("_", "-"): one for name, one in others.items()}}, FleetSettings())


def refused_data(value: str, key: str) -> str:
    """What is said of a data set of the device's own that is not there."""
    with pytest.raises(DataError) as refused:
        device_data({key: value}, Config())
    return str(refused.value)


def data_kept_in(value: str, key: str) -> str:
    """In which folder a device keeps the images that it decodes."""
    with TemporaryDirectory() as place:
        for name in ("a", "b"):
            (Path(place) / "images" / name).mkdir(parents=True)
            for number in range(2):
                Image.new("L", (8, 8), number).save(Path(place) / "images" / name / f"{number}.png")
        device_data({"data": f"{place}/images", key: f"{place}/{value}"}, Config(), ["a", "b"])
        return " ".join(path.name for path in Path(place).iterdir())


def refused_noise(value: str, key: str) -> str:
    """What is said of a number for local differential privacy that is none."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    context = Context(1, 5, {key: value}, RecordDict(), Config().to_mapping())
    reply = local_dp(Message(RecordDict(), 5, "train"), context, lambda message, context: message)
    return str(reply.error.reason)


READ: dict[str, Callable[[str, str], object]] = {
    "device-name": lambda value, key: told(value, key, max_macs="1M").name,
    "partition-id": lambda value, key: told(value, key).partition,
    **{f"max-{bound}": lambda value, key: told(value, key).budget for bound in BOUND_KEYS},
    "max-latency-ms": lambda value, key: told(value, key, profile="phone").budget,
    "profile": lambda value, key: told(value, key, max_macs="1M").profile,
    "data": refused_data,
    "data-path": refused_data,
    "data-folder": data_kept_in,
    "model": lambda value, key: own_model({key: value}, ModelSettings()),
    **dict.fromkeys(("local-dp-clipping-norm", "local-dp-epsilon", "local-dp-delta"), refused_noise),
}
"""What a device makes of a key, in which the key's value can be seen."""
NOT_READ = {"num-partitions"}  # the run says how many devices there are
VALUES = dict.fromkeys(READ, "7") | dict.fromkeys((key for key in READ if READ[key] is refused_noise), "seven")


@pytest.mark.parametrize("key", READ)
def test_every_key_is_read_on_the_device(key: str) -> None:
    value = VALUES[key]
    assert value in str(READ[key](value, key))


def test_every_key_is_explained_where_the_refusal_of_others_sends_its_reader() -> None:
    assert set(READ) | NOT_READ == set(NODE_KEYS)
    rows = (ROOT / "docs/deployment.md").read_text(encoding="utf-8").partition("| key of `--node-config` |")[2]
    table = rows.partition("\n\n")[0]
    named = {key for line in table.splitlines() for key in re.findall("`([a-z-]+)`", line.split(" | ")[0])}
    assert named == set(NODE_KEYS) - NOT_READ
    assert all(f"`{key}`" in table for key in NOT_READ)


@pytest.mark.parametrize("key", ["local-dp-epsilon", "local-dp-delta"])
@pytest.mark.parametrize("norm", [{}, {"local-dp-clipping-norm": 0}, {"local-dp-clipping-norm": 0.0}])
def test_noise_that_is_not_switched_on_is_refused(key: str, norm: dict[str, float]) -> None:
    own = {"partition-id": 0, key: 0.1}
    check_node_config({**own, "local-dp-clipping-norm": 1.5})
    with pytest.raises(ConfigurationError, match=rf"{key} .* without local-dp-clipping-norm above 0"):
        identify({**own, **norm}, FleetSettings())


def test_a_device_may_decline_the_noise_of_the_run() -> None:
    check_node_config({"partition-id": 0, "local-dp-clipping-norm": 0})
