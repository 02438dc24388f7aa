"""How a setting is defined, once, with its help and limits, and how values of it are read and checked."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Self, TypeAlias

from common.errors import ConfigurationError

Scalar: TypeAlias = bool | int | float | str

LARGEST_WHOLE = 10**9
"""No setting that is a whole number is larger, unless it says how large: libraries count to 2^31 or 2^63."""


def setting(
    default: Scalar,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    pattern: str = "",
    common: bool = False,
) -> Any:
    """A dataclass field with its help text and the values it accepts.

    `minimum` and `maximum` (of whole numbers LARGEST_WHOLE where none is given) are inclusive, `above` is exclusive;
    `pattern` must match the whole string. Those that are `common` stand in the short help.
    """
    limits = {"choices": choices, "minimum": minimum, "above": above, "maximum": maximum, "pattern": pattern}
    return field(default=default, metadata={"help": help, "common": common, **limits})


class Settings:
    """Base of the frozen settings dataclasses: validation, and conversion from and to flat TOML keys."""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _coerce(key_of(one.name), getattr(self, one.name), one.default, one.metadata)
            object.__setattr__(self, one.name, value)

    @classmethod
    def keys(cls) -> list[str]:
        """The TOML keys of this group, in order."""
        return [key_of(one.name) for one in dataclasses.fields(cls)]  # type: ignore[arg-type]

    def to_mapping(self) -> dict[str, Scalar]:
        """Flat `key: value` pairs, ready for TOML."""
        return {key_of(one.name): getattr(self, one.name) for one in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def picked_from(cls, mapping: Mapping[str, Any]) -> Self:
        """Settings from those of the kebab-case keys that are this group's."""
        known = set(cls.keys())
        return cls.from_mapping({key: value for key, value in mapping.items() if key in known})

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Settings from kebab-case keys; a missing key keeps its default.

        Raises ConfigurationError for an unknown key (with the nearest known one) or a bad value.
        """
        check_known(mapping, cls.keys())
        return cls(**{name_of(key): value for key, value in mapping.items()})


def keys_of(*groups: type[Settings]) -> frozenset[str]:
    """The keys of whole groups of settings."""
    return frozenset(key for group in groups for key in group.keys())  # noqa: SIM118


def key_of(name: str) -> str:
    """`local_epochs` -> `local-epochs`; the only place where the two spellings meet, with `name_of`."""
    return name.replace("_", "-")


def name_of(key: str) -> str:
    """`local-epochs` -> `local_epochs`."""
    return key.replace("-", "_")


def check_known(mapping: Mapping[str, Any], known: Iterable[str], what: str = "setting") -> None:
    """Raise ConfigurationError for the first key of `mapping` that is not known, naming the nearest known one.

    `what` is what such a key is called.
    """
    known = list(known)
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
            raise ConfigurationError(f"unknown {what} {key!r:.200}: {hint}")


def _coerce(key: str, value: Any, default: Any, limits: Mapping[str, Any]) -> Scalar:
    kind = type(default)
    try:
        if kind is bool:
            result: Scalar = _boolean(value)
        elif kind is int:
            result = int(value)
            if isinstance(value, bool) or (isinstance(value, float) and result != value):
                raise ValueError
        elif kind is float:
            if isinstance(value, bool):
                raise ValueError
            result = float(value)
        else:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            result = str(value)
    except (TypeError, ValueError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise ConfigurationError(f"{key} must be {wanted}, not {value!r:.200}") from None
    _check_limits(key, result, limits)
    return result


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError
    return words[str(value).lower()]


def _check_limits(key: str, value: Scalar, limits: Mapping[str, Any]) -> None:
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigurationError(f"{key} must be one of {', '.join(limits['choices'])}, not {value!r:.200}")
    if limits["pattern"] and not re.fullmatch(limits["pattern"], str(value)):
        raise ConfigurationError(f"{key} cannot be {value!r:.200}; see the help of --{key}")
    if isinstance(value, str | bool):
        return
    if value != value or value in (float("inf"), float("-inf")):
        raise ConfigurationError(f"{key} must be a finite number, not {value}")
    if limits["minimum"] is not None and value < limits["minimum"]:
        raise ConfigurationError(f"{key} must be at least {limits['minimum']:g}, not {value}")
    if limits["above"] is not None and value <= limits["above"]:
        raise ConfigurationError(f"{key} must be above {limits['above']:g}, not {value}")
    most = LARGEST_WHOLE if limits["maximum"] is None and isinstance(value, int) else limits["maximum"]
    if most is not None and value > most:
        raise ConfigurationError(f"{key} must be at most {most:g}, not {value}")
