"""The version of FedDAC, from one place: the project file of a checkout or app bundle, else the installed package."""

import tomllib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

PROJECT_FILE = Path(__file__).resolve().parent.parent / "pyproject.toml"


@lru_cache(maxsize=1)
def version() -> str:
    """The version of the code that is running, such as `0.1.0`; `unknown` where nothing says it."""
    try:
        project = tomllib.loads(PROJECT_FILE.read_text(encoding="utf-8"))["project"]
        if project["name"] == "feddac":
            return str(project["version"])
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError):
        pass
    try:
        return installed("feddac")
    except PackageNotFoundError:
        return "unknown"
