"""Devices on which another version of FedDAC lies about: what runs there, and what a user sees."""

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from common.handshake import code_fingerprint
from tests.e2e.conftest import ROOT, weights_of
from tests.feddac.deployment.conftest import Deployment
from tests.feddac.deployment.test_faults import simulated_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PRELOAD = """
import importlib.machinery, os, sys

class Installed:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("client", "common"):
            return importlib.machinery.PathFinder.find_spec(name, [os.path.dirname(__file__)])

sys.meta_path.insert(0, Installed)
"""


def other_version(folder: Path, preload: bool) -> Path:
    """A copy of the packages in which a module differs; with `preload` Python loads it whatever it is asked to run."""
    for package in ("client", "common"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "common" / "messages.py").open("a") as file:
        file.write("\n# changed\n")
    if preload:
        (folder / "sitecustomize.py").write_text(PRELOAD)
    return folder


def restart_among(deployment: Deployment, number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the SuperNode of a device again, in an environment where Python finds the packages in `folder` first."""
    federation = deployment.federation
    old = federation.supernodes[deployment.devices[number].name]
    old.signal(signal.SIGKILL)
    old.wait(10)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        started = federation.start_supernode(number)
    deployment.wait_for(lambda: started.log.read_text().count("SuperNode ID") == 2)


def test_a_device_with_another_version_installed_runs_what_was_submitted(
    deploy: Callable[..., Deployment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deploy()
    restart_among(deployment, 1, other_version(tmp_path / "other", preload=False), monkeypatch)
    deployment.start()
    assert deployment.finish().completed, deployment.log
    assert not any("left out" in line for line in deployment.log)
    deployment.require_whole(rounds=2)
    assert weights_of(deployment.folder) == simulated_weights(tmp_path)


def test_a_device_that_runs_other_code_is_left_out_and_both_versions_are_named(
    deploy: Callable[..., Deployment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deploy(devices=["honest", "changed"])
    restart_among(deployment, 1, other_version(tmp_path / "other", preload=True), monkeypatch)
    deployment.start()
    assert deployment.finish().completed, deployment.log
    deployment.require_whole(rounds=2)
    assert deployment.statuses("honest") == ["trained", "trained"]
    assert deployment.statuses("changed") == []
    [line] = [one for one in deployment.log if "left out" in one]
    found = re.search(r"server and device run different code: server \S+ \((\w+)\), device \S+ \((\w+)\); ", line)
    assert found, line
    assert found[1] == code_fingerprint()
    assert found[2] != found[1]
