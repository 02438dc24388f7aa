"""How the fuzzer watches what a command starts."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.limits import children

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in Linux's /proc")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_living_child_is_found_and_an_ended_one_is_not(child: subprocess.Popen[bytes]) -> None:
    assert child.pid in children()
    child.kill()
    child.wait()
    assert child.pid not in children()


def test_a_thread_that_ends_meanwhile_has_no_children(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def glob(self: Path, pattern: str) -> Iterator[Path]:
        yield Path("/proc/self/task/0/children")
        yield from found(self, pattern)

    found = Path.glob
    monkeypatch.setattr(Path, "glob", glob)
    assert child.pid in children()
