"""TOML files that users write."""

import tomllib
from pathlib import Path
from typing import Any

from common.errors import ConfigurationError


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file; `what` names the kind of file in errors, as in "the fleet file".

    Raises ConfigurationError if it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{what} {path} is not valid TOML: {error}") from None
