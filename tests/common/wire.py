"""The messages of a handshake to try things on, and what happens to a message on its way."""

from typing import Any

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from common.budget import DeviceBudget, LocalTraining
from common.handshake import DeviceReport, Hello
from common.rates import COUNTED, LatencyBound

HELLO = Hello.mine(("cats", "dogs"))
LATENCY = LatencyBound(20.0, tuple(number / 97 for number in range(len(COUNTED))))
REPORT = DeviceReport("device 1", "phone", 3, 120, DeviceBudget(macs=30_000_000, peak_memory_bytes=2**19))
EVERY_BOUND = DeviceReport("d", "phone", 0, 9, DeviceBudget(1, 2, 3, 4, LATENCY, LocalTraining(8, 3)))


def over_the_wire(content: RecordDict) -> RecordDict:
    """The content after Flower has taken it apart into objects and put it together again, and after protobuf."""
    objects = {name: part.deflate() for name, part in get_all_nested_objects(content).items()}
    inflated = inflate_object_from_contents(content.object_id, objects)
    assert isinstance(inflated, RecordDict)
    return recorddict_from_proto(recorddict_to_proto(inflated))


def with_field(message: Any, record: str, key: str, value: Any) -> RecordDict:
    """The encoded message with one field replaced, or removed where `value` is None."""
    content: RecordDict = message.encode()
    if value is None:
        del content[record][key]
    else:
        content[record][key] = value
    return content
