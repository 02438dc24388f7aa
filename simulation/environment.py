"""Environment variables that must be set before Flower, Ray or the C library read them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CODE_ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds the packages common, dac, server, client and simulation."""

DEFAULTS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray prints a paragraph for each dead worker; the server names the device.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # In spite of its name: Ray keeps to 127.0.0.1, on every system.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Without it Ray prints a FutureWarning at every start.
}
"""No telemetry, no update check, no installation of packages, no advice that a user of FedDAC cannot follow."""

CPU_TUNING = {
    # Keep glibc from giving every large activation back to the system, to ask for it again in the next step.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}
"""How training gets the most out of CPUs; see benchmarks/cpu_tuning.py."""

_MARKER = "FEDDAC_CPU_TUNED"


def set_defaults() -> None:
    """Set DEFAULTS where the user has not decided otherwise."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def restart_with_cpu_tuning() -> None:
    """Replace this process by itself under CPU_TUNING, once; libraries read these only when a process starts."""
    if not sys.platform.startswith("linux") or _MARKER in os.environ or not sys.orig_argv:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    tuned = {name: value for name, value in CPU_TUNING.items() if name not in os.environ}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **tuned, _MARKER: "1"})


def prefer_own_code() -> None:
    """Put CODE_ROOT first on the import path, before a working folder that may well have its own `client`."""
    root = str(CODE_ROOT)
    sys.path[:] = [root, *(folder for folder in sys.path if folder != root)]


@contextmanager
def variables(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for processes started inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
