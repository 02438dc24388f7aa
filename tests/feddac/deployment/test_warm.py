"""The warm process of a device; that its copies train as new processes do is shown by test_up.py."""

import subprocess
import sys

from flwr.supercore.version import package_version

WARM_UP = """
import sys
from feddac.deployment.warm import warm_up

warm_up()
print(*sys.modules)
"""


def run(*arguments: str) -> str:
    return subprocess.run([sys.executable, "-P", *arguments], capture_output=True, text=True, check=True).stdout


def test_it_has_imported_what_takes_long_and_none_of_the_code_that_comes_with_a_run() -> None:
    loaded = run("-c", WARM_UP).split()
    assert {"torch", "flwr.clientapp", "numpy", "safetensors"} <= set(loaded)
    assert [name for name in loaded if name.partition(".")[0] in ("client", "common", "dac", "server")] == []


def test_what_only_asks_about_the_supernode_starts_nothing_else() -> None:
    said = run("-m", "feddac.deployment.supernode", "--version")
    assert said.strip() == f"Flower version: {package_version}"
