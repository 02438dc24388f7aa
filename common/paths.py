"""Paths as a user writes them."""

from pathlib import Path

from common.errors import ConfigurationError


def user_path(text: str | Path) -> Path:
    """`text` as a path, with `~` and `~name` replaced by home folders.

    Raises ConfigurationError for a user that does not exist and for a name that cannot be one.
    """
    if "\0" in str(text):
        raise ConfigurationError("a path cannot hold a NUL byte")
    try:
        path = Path(text).expanduser()
        path.exists()  # an OSError for a name that is too long
        return path
    except (RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or "there is no such user"
        raise ConfigurationError(f"{str(text)[:100]!r} cannot be a path: {reason}") from None
