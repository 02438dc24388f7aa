"""A run that nobody begins is told of, and an address that is none is a mistake in one line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from feddac.cli.main import run
from feddac.deployment import follow as following
from feddac.deployment.control import RunStatus
from tests.feddac.cli.errors import assert_one_clear_line

PENDING, RUNNING, DONE = (
    RunStatus("pending", "", ""),
    RunStatus("running", "", ""),
    RunStatus("finished", "completed", ""),
)


class Link:
    """Stands for a SuperLink whose run goes through these stages."""

    stages: Iterator[RunStatus] = iter(())

    def __init__(self, *_: object) -> None: ...
    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None: ...
    def status(self, run_id: int) -> RunStatus:
        return next(Link.stages)

    def log(self, run_id: int, after: float = 0.0) -> Iterator[tuple[float, list[str]]]:
        return iter(())


@pytest.mark.parametrize(
    ("stages", "patience", "told"),
    [
        ([PENDING] * 5 + [RUNNING, DONE], 0.0, 1),
        ([PENDING] * 5 + [RUNNING, DONE], 60.0, 0),
        ([RUNNING] * 5 + [DONE], 0.0, 0),
    ],
)
def test_a_run_that_waits_for_a_process_says_so_once_and_how_it_is_ended(
    stages: list[RunStatus], patience: float, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = list[str]()
    monkeypatch.setattr(following, "Control", Link)
    monkeypatch.setattr(Link, "stages", iter(stages))
    monkeypatch.setattr(following, "PENDING_SECONDS", patience)
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    assert following.follow("x:1", None, 7, shown.append) == DONE
    assert len(shown) == told
    for line in shown:
        assert "no process runs server apps. Is flower-superexec started, with the same secret?" in line
        assert "flwr stop 7 deployment" in line


@pytest.mark.parametrize("address", ["::1:8000", "fe80::1%eth0:8000", "host:port"])
def test_an_address_that_is_none_is_refused_in_one_line(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", "--superlink", address, "--devices", "2", "--out", str(tmp_path / "run")]) == 2
    assert_one_clear_line(capsys.readouterr().err, "give HOST:PORT, an IPv6 address as [::1]:8000")
