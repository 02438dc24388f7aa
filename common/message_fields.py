"""The values in a message, each checked as it is read: they come from another machine.

Every function raises MessageError, which names the key.
"""

import math
from typing import Any

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from common.errors import MessageError

SCHEMA = 3
"""The version of the wire schema."""

LARGEST_NUMBER = 1e18
"""Of what a device reports: a finite number near the largest overflows once it is weighted and summed."""

MOST_CLASSES, LONGEST_CLASS_NAME = 65_536, 1000
"""Of the class names that a run tells its devices."""


def config_record(content: RecordDict, name: str) -> ConfigRecord:
    """The record of this name."""
    record = content.get(name)
    if not isinstance(record, ConfigRecord):
        raise MessageError(f"the message has no {name!r} record")
    return record


def metric_record(content: RecordDict) -> MetricRecord:
    """The reply's figures."""
    record = content.get("result")
    if not isinstance(record, MetricRecord):
        raise MessageError("the reply has no 'result' record")
    return record


def read_integer(values: Any, key: str, minimum: int | None = None) -> int:
    """A whole number, of at least `minimum`."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise MessageError(f"{key} must be a whole number, not {value!r:.60}")
    if minimum is not None and value < minimum:
        raise MessageError(f"{key} must be at least {minimum}, not {value}")
    return value


def read_number(values: Any, key: str, minimum: float | None = None) -> float:
    """A finite number between `minimum` and LARGEST_NUMBER."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MessageError(f"{key} must be a finite number, not {value!r:.60}")
    if minimum is not None and value < minimum:
        raise MessageError(f"{key} must be at least {minimum:g}, not {value}")
    if abs(value) > LARGEST_NUMBER:
        raise MessageError(f"{key} must be at most {LARGEST_NUMBER:g}, not {value}")
    return float(value)


def read_text(values: Any, key: str) -> str:
    """A string."""
    value = values.get(key)
    if not isinstance(value, str):
        raise MessageError(f"{key} must be text, not {value!r:.60}")
    return value


def read_class_names(values: Any) -> tuple[str, ...]:
    """The names of a run's classes, in the order of their labels."""
    names = values.get("class-names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MessageError(f"class-names must be a list of texts, not {names!r:.60}")
    if len(names) > MOST_CLASSES or any(len(name) > LONGEST_CLASS_NAME for name in names):
        most = f"{MOST_CLASSES} names of {LONGEST_CLASS_NAME} characters"
        raise MessageError(f"class-names must be at most {most}, not {len(names)} of up to {max(map(len, names))}")
    return tuple(names)


def require_schema(values: ConfigRecord) -> None:
    """Raise unless the other side speaks this schema."""
    if read_integer(values, "schema") != SCHEMA:
        raise MessageError(f"the other side speaks schema {values['schema']!r}, this one {SCHEMA}")
