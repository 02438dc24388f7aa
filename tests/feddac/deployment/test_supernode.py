"""`feddac supernode` refuses what a device would not read, before anything is started."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from feddac.deployment.supernode import become_supernode
from tests.e2e.conftest import ROOT
from tests.feddac.cli.errors import assert_one_clear_line
from tests.forked import feddac_forked

LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="a supervisor needs POSIX")


class _Become(Exception):
    """What the process would be replaced by."""


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def become(path: str, command: Sequence[str], environment: dict[str, str]) -> None:
        raise _Become(*command)

    monkeypatch.setattr(os, "execve", become)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('partition-id=0 max-mem="60KB"', "unknown key of --node-config 'max-mem': did you mean 'max-memory'?"),
        ("max_macs=5000", "did you mean 'max-macs'?"),
        ("partition-id=0 max-macs = 5000", "without spaces around '='"),
        ('partition-id=0 device-name= "camera"', "without spaces around '='"),
        ("max-macs=5M", "quote what is no number"),
        ('device-name="camera', "quote what is no number"),
        ("no-such-file.toml", "cannot read --node-config no-such-file.toml: No such file"),
    ],
)
def test_a_node_configuration_that_says_nothing_is_refused(given: str, said: str) -> None:
    for arguments in (["--insecure", "--node-config", given], [f"--node-config={given}", "--insecure"]):
        with pytest.raises(ConfigurationError) as refused:
            become_supernode(arguments)
        assert said in str(refused.value)


@pytest.mark.parametrize(
    "given",
    ['partition-id=0 device-name="old camera" max-macs="5M" model="a.b:c=d"', "", "max-macs=5000  profile='pi'"],
)
def test_any_other_is_passed_on(given: str) -> None:
    with pytest.raises(_Become) as become:
        become_supernode(["--insecure", "--node-config", given])
    *_, supervisor, runtime = become.value.args[:5]
    assert (supervisor, runtime) == ("feddac.deployment.supervisor", "127.0.0.1:9094" if LINUX else "")
    assert become.value.args[5:8] == ("--insecure", "--node-config", given)


@pytest.mark.parametrize(
    ("more", "runtime"),
    [
        (["--port", "9095"], "127.0.0.1:9095"),
        (["--host=::1"], "[::1]:9094"),
        (["--isolation", "subprocess"], ""),
        (["--superexec-auth-secret-file=secret"], ""),
    ],
)
def test_a_warm_process_is_told_where_to_serve_and_there_is_none_where_the_user_decides(
    more: list[str], runtime: str
) -> None:
    with pytest.raises(_Become) as become:
        become_supernode(["--insecure", *more])
    _, _, _, supervisor, address, *arguments = become.value.args
    assert (supervisor, address) == ("feddac.deployment.supervisor", runtime if LINUX else "")
    assert arguments[: 1 + len(more)] == ["--insecure", *more]
    assert arguments[1 + len(more) :] == (["--isolation", "process"] if address else [])


def test_what_only_asks_is_flowers_own_program() -> None:
    with pytest.raises(_Become) as become:
        become_supernode(["--help"])
    assert become.value.args[0].endswith("flower-supernode")
    assert become.value.args[1:] == ("--help",)


def test_a_file_of_toml_is_read(tmp_path: Path) -> None:
    file = tmp_path / "device.toml"
    file.write_text('partition-id = 0\nmax-macs = "5M"\n')
    with pytest.raises(_Become):
        become_supernode(["--node-config", str(file)])
    file.write_text('partition-id = 0\nmax-mac = "5M"\n')
    with pytest.raises(ConfigurationError, match="did you mean 'max-macs'"):
        become_supernode(["--node-config", str(file)])


def test_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ["supernode", "--insecure", "--superlink", "127.0.0.1:9", "--node-config", 'max-mem="60KB"']
    done = feddac_forked(words, tmp_path, environment, timeout=60)
    assert done.returncode == 2
    assert_one_clear_line(done.stderr, "did you mean 'max-memory'?")
