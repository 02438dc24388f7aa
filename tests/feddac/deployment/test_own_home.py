"""Every start of a device unpacks apps into a folder of its own, so that nothing half unpacked is taken for whole."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from feddac.deployment import warm
from feddac.deployment.own_home import OwnHome
from tests.e2e.conftest import ROOT


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    return tmp_path / "flwr" / "feddac-supernodes"


def test_it_is_new_within_the_users_and_removed_at_the_end(user: Path) -> None:
    half = user.parent / "apps" / "feddac.feddac.0.2.0.0123abcd"
    half.mkdir(parents=True)
    with OwnHome() as first, OwnHome() as second:
        assert first.path != second.path
        assert first.path.parent == second.path.parent == user
        assert list(first.path.iterdir()) == []
        (first.path / "apps").mkdir()
    assert list(user.iterdir()) == []
    assert half.is_dir()  # another's, which may run from there


def test_what_a_killed_one_left_is_removed_by_the_next_and_a_living_ones_is_not(user: Path) -> None:
    script = (
        "import os, sys; from feddac.deployment.own_home import OwnHome; home = OwnHome(); print(home.path); "
        "(home.path / 'apps').mkdir(); sys.stdout.flush(); sys.stdin.read(); os._exit(9)"
    )
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen([sys.executable, "-P", "-c", script], stdin=pipe, stdout=pipe, env=environment, text=True)
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    with OwnHome():
        assert theirs.is_dir()
    other.communicate()
    assert theirs.is_dir()
    with OwnHome() as own:
        assert list(user.iterdir()) == [own.path]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_home_that_cannot_be_written_is_an_error(user: Path) -> None:
    user.parent.mkdir(mode=0o500)
    with pytest.raises(OSError, match="Permission denied"):
        OwnHome()


class _OverError(Exception):
    """No more messages are expected."""


def messages(count: int) -> Iterator[SimpleNamespace]:
    for number in range(count):
        yield SimpleNamespace(HasField=lambda field: True, token=str(number))
        for _ in range(10):  # polls without a message
            yield SimpleNamespace(HasField=lambda field: False, token="")
    raise _OverError


def serve(answer: Callable[..., None], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`count` messages, one after the other, each answered by `answer` in a copy of this process."""
    left = messages(count)
    client = SimpleNamespace(AcquireTask=lambda request: next(left))
    monkeypatch.setattr(
        "flwr.supercore.runtime.RuntimeHttpClient.from_server_address", lambda **_: client, raising=True
    )
    monkeypatch.setattr("flwr.supernode.runtime.run_clientapp.run_clientapp", answer)
    monkeypatch.setattr(warm, "POLL_SECONDS", 0.05)
    with pytest.raises(_OverError):
        warm.serve("127.0.0.1:9")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no warm process")
def test_what_a_failed_message_has_unpacked_is_unpacked_again_and_else_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "flwr" / "apps" / "feddac.feddac.0.2.0.0123abcd"

    def answer(token: str, **_: object) -> None:
        (tmp_path / f"found-{token}").write_text(str(app.exists()))
        app.mkdir(parents=True, exist_ok=True)
        sys.exit(1 if token == "0" else 0)

    serve(answer, 3, monkeypatch)
    found = [(tmp_path / f"found-{number}").read_text() for number in range(3)]
    assert found == ["False", "False", "True"]
