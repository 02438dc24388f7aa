"""The app bundle that Flower ships to every process of a run, made from the packages as they are installed."""

from collections.abc import Mapping
from pathlib import Path

import tomli_w
from flwr.cli.build import build_fab_from_files

from common.config import Config
from common.version import version
from feddac.start import CLIENT_APP
from simulation.environment import CODE_ROOT

PACKAGES = ("client", "common", "dac", "server")
SERVER_APP = "server.app:app"


def app_bundle(config: Config, client_app: str = CLIENT_APP, more: Mapping[str, bytes] | None = None) -> bytes:
    """The bundle of a run with these settings, as bytes.

    `more` are further files by their path in the bundle. No `pyproject.toml` is needed beside the packages, so it works
    for an installed FedDAC as for a checkout; the settings become the app's run configuration.
    """
    files: dict[str, bytes | Path] = {
        path.relative_to(CODE_ROOT).as_posix(): path
        for package in PACKAGES
        for path in sorted((CODE_ROOT / package).glob("**/*.py"))
    }
    files["pyproject.toml"] = tomli_w.dumps(_project(config, client_app)).encode()
    bundle, _ = build_fab_from_files({**files, **(more or {})})
    return bundle


def _project(config: Config, client_app: str) -> dict[str, object]:
    # No dependencies: Flower would install them anew for each run, and every machine has them with FedDAC.
    said = version()
    return {
        "project": {"name": "feddac", "version": said if said != "unknown" else "0.0.0", "dependencies": []},
        "tool": {
            "flwr": {
                "app": {
                    "publisher": "feddac",
                    "components": {"serverapp": SERVER_APP, "clientapp": client_app},
                    "config": config.to_mapping(),
                }
            }
        },
    }
