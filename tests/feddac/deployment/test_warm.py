"""The warm process of a device; that its copies train as new processes do is shown by test_up.py."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
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
    assert {"torch", "flwr.clientapp", "numpy"} <= set(loaded)
    assert [name for name in loaded if name.partition(".")[0] in ("client", "common", "dac", "server")] == []


def test_what_only_asks_about_the_supernode_starts_nothing_else() -> None:
    said = run("-m", "feddac.deployment.supernode", "--version")
    assert said.strip() == f"Flower version: {package_version}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no warm process")
def test_a_supernode_that_ends_at_once_leaves_no_process_behind() -> None:
    command = [sys.executable, "-P", "-m", "feddac.deployment.supernode", "--nosuchflag"]
    pipe = subprocess.PIPE
    begun = subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        said, _ = begun.communicate(timeout=60)  # whoever lives on holds the pipe open
    finally:
        with suppress(ProcessLookupError):
            os.killpg(begun.pid, signal.SIGKILL)
    assert "nosuchflag" in said
    assert begun.returncode != 0


def test_a_warm_process_whose_supernode_is_gone_imports_nothing_that_takes_long() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "feddac.deployment.warm", "127.0.0.1:9", str(gone.pid)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert " torch\n" not in done.stderr
