"""TOML files that users write."""

from pathlib import Path
from typing import Any

from common.errors import ConfigurationError
from common.reading import Unreadable, parse_toml, printable, read_limited


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file; `what` names the kind of file in errors, as in "the fleet file".

    Raises ConfigurationError if it cannot be read or is not TOML.
    """
    try:
        return parse_toml(read_limited(path))
    except Unreadable as error:
        text = str(error)
        problem = f"is {text}" if text.startswith("not valid") else f"cannot be read: {text}"
        raise ConfigurationError(f"{what} {printable(path)} {problem}") from None
