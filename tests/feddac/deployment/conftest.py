"""Federations of real processes on this machine, with client apps that misbehave on purpose."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.config import Config
from common.fleet import VirtualDevice, virtual_fleet
from feddac.deployment.bundle import app_bundle
from feddac.deployment.control import Control, RunStatus
from feddac.deployment.follow import follow
from feddac.deployment.local import LocalFederation
from server.run_folder import RunFolder
from tests.server.helpers import SMALL_RUN

HOSTILE = Path(__file__).with_name("hostile.py")

SMALL = {**SMALL_RUN, "devices": 2}


class Deployment:
    """A local federation and one run on it, which goes on in the background while a test does harm."""

    def __init__(
        self, folder: Path, settings: dict[str, Any], devices: list[str] | None = None, tls: bool = False
    ) -> None:
        self.folder = folder / "run"
        self.log: list[str] = []
        self.status: RunStatus | None = None
        self.marks = folder / "marks"
        self.marks.mkdir()
        count = {"devices": len(devices)} if devices else {}
        self.config = Config.from_mapping({**SMALL, **count, **settings, "out": str(self.folder)})
        fleet = virtual_fleet(self.config.fleet)
        names = devices or [device.name for device in fleet]
        self.devices = [
            VirtualDevice(name, device.profile, device.budget) for name, device in zip(names, fleet, strict=True)
        ]
        self.federation = LocalFederation(folder / "deployment", self.devices, tls, self.log.append)
        self._thread: threading.Thread | None = None

    def start(self, hostile: bool = False) -> None:
        """Submit the run; a second call submits it again, which resumes it."""
        more = {
            "hostile/__init__.py": b"",
            "hostile/app.py": HOSTILE.read_bytes(),
            "hostile/marks.py": f"FOLDER = {str(self.marks)!r}\n".encode(),
        }
        bundle = app_bundle(self.config, "hostile.app:app", more) if hostile else app_bundle(self.config)
        with Control(self.federation.address, self.federation.root_certificates) as control:
            run = control.start_run(bundle)
        self._thread = threading.Thread(target=self._follow, args=(run,), daemon=True)
        self._thread.start()

    def _follow(self, run: int) -> None:
        federation = self.federation
        self.status = follow(federation.address, federation.root_certificates, run, self.log.append, federation.check)

    def finish(self, seconds: float = 280.0) -> RunStatus:
        """How the run ended."""
        assert self._thread is not None
        self._thread.join(seconds)
        assert self.status is not None, self.log
        return self.status

    def wait_for(self, condition: Callable[[], bool], seconds: float = 200.0) -> None:
        """Return as soon as `condition` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log
            assert self.status is None, (self.status, self.log)
            time.sleep(0.1)

    @staticmethod
    def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
        """The events of a kind in the metrics of a run folder so far."""
        path = folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind in the run's metrics so far."""
        return self.events_of(self.folder, kind)

    def statuses(self, device: str) -> list[str]:
        """What became of a device, round by round."""
        return [event["status"] for event in self.events("device") if event["device"] == device]

    def require_whole(self, rounds: int) -> None:
        """Assert that the run ended with every round once, its models and its report."""
        cohorts = {event["cohort"] for event in self.events("round")}
        numbers = [(event["round"], event["cohort"]) for event in self.events("round")]
        assert sorted(numbers) == sorted((number, cohort) for number in range(1, rounds + 1) for cohort in cohorts)
        summary = RunFolder.open(self.folder).read_summary()
        assert summary["rounds"] == rounds
        assert (self.folder / "report.html").stat().st_size > 0
        assert len(list((self.folder / "models").glob("*.safetensors"))) == len(cohorts)


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Start a federation; it is stopped at the end of the test."""
    started: list[Deployment] = []

    def start(*, devices: list[str] | None = None, wait: bool = True, tls: bool = False, **settings: Any) -> Deployment:
        mapping = {key.replace("_", "-"): value for key, value in settings.items()}
        deployment = Deployment(tmp_path, mapping, devices, tls)
        deployment.federation.__enter__()
        started.append(deployment)
        if wait:
            deployment.federation.wait_until_connected()
        return deployment

    yield start
    for deployment in started:
        deployment.federation.__exit__()
