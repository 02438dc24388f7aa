"""Bounds of a device as people write them: counts, sizes and times with their units."""

import math
import re
from collections.abc import Mapping
from typing import Any

from common.budget import FLOAT32_BYTES, USUAL_TRAINING, DeviceBudget, LocalTraining
from common.errors import BudgetError

_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_BYTE_UNITS = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
STORED = {"int8": 1, "float32": FLOAT32_BYTES}
# A comma only groups three digits, so that the 1,5M of other countries is refused, not read as 15M.
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*|(?=\.[0-9]))(?:\.[0-9]*)?(?:e[+-]?[0-9]{1,3})?"


def parse_count(text: str, what: str) -> int:
    """A count such as `30M`, `1.2e6` or `512k`; raises BudgetError naming `what` otherwise.

    >>> parse_count("1.5M", "--max-macs")
    1500000
    """
    return _parse(text, what, _COUNT_UNITS, "a positive number such as 30M, 1.2e6 or 500k")


def parse_bytes(text: str, what: str) -> int:
    """A size such as `512KB` (10^3) or `2MiB` (2^20); raises BudgetError naming `what` otherwise."""
    return _parse(text, what, _BYTE_UNITS, "a positive size such as 512KB or 2MiB")


def parse_params(text: str, what: str) -> int:
    """Parameters as a count (`500k`), or as what they take where they are stored (`77KB:int8`, `2MB:float32`).

    >>> parse_params("77KiB:int8", "--max-params")
    78848
    """
    size, bytes_each = _stored(text)
    if not bytes_each:
        return parse_count(text, what)
    count = parse_bytes(size, what) // bytes_each
    if count == 0:
        raise BudgetError(f"{what} must hold at least one parameter, not {text!r}")
    return count


def parse_memory(text: str, what: str) -> int:
    """Bytes of activations as FedDAC counts them, in float32: `64KB:int8` is four times that, `64KB` is itself."""
    size, bytes_each = _stored(text)
    return parse_bytes(size, what) * (FLOAT32_BYTES // bytes_each if bytes_each else 1)


def _stored(text: str) -> tuple[str, int]:
    """A size without the type that values are stored in, and the bytes of one value; 0 where no type is named."""
    for name, bytes_each in STORED.items():
        if text.lower().rstrip().endswith(f":{name}"):
            return text.rpartition(":")[0], bytes_each
    return text, 0


def parse_milliseconds(value: object, what: str) -> float:
    """A time such as `20` or `2.5`; raises BudgetError naming `what` otherwise."""
    try:
        result = float(str(value))
    except ValueError:
        result = math.nan
    if isinstance(value, bool) or not (0 < result < math.inf):
        raise BudgetError(f"{what} must be a positive number of milliseconds such as 20 or 2.5, not {value!r:.60}")
    return result


def parse_bounds(
    values: Mapping[str, object], prefix: str = "", training: LocalTraining = USUAL_TRAINING
) -> DeviceBudget:
    """The budget whose bounds are under BOUND_KEYS, each after `prefix`; a missing one is none.

    `training` is how the device trains. Raises BudgetError that names the key.

    >>> str(parse_bounds({"max-macs": "30M", "max-memory": "512KB"}, "max-"))
    'below 30,000,000 MACs, 512,000 bytes of peak memory'
    """
    parsed: dict[str, Any] = {
        resource: parse(str(values[prefix + key]), prefix + key)
        for key, (resource, parse) in BOUND_KEYS.items()
        if prefix + key in values
    }
    return DeviceBudget(**parsed, training=training)


BOUND_KEYS = {
    "macs": ("macs", parse_count),
    "params": ("params", parse_params),
    "memory": ("peak_memory_bytes", parse_memory),
    "training-memory": ("training_memory_bytes", parse_bytes),
}
"""What bounds are called by people, the field of a DeviceBudget, and how they are read."""


def _parse(text: str, what: str, units: dict[str, int], wanted: str) -> int:
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in units:
        raise BudgetError(f"{what} must be {wanted}, not {text!r}")
    value = float(match[1].replace("_", "").replace(",", "")) * units[match[2]]
    if not 1 <= value < 2**62:
        raise BudgetError(f"{what} must be {wanted}, not {text!r}")
    return round(value)
