"""What goes wrong between real machines, with the real processes: the run ends well and no completed round is lost."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feddac.deployment.processes import Process
from tests.e2e.conftest import feddac, weights_of
from tests.feddac.deployment.conftest import SMALL, Deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Deploy = Callable[..., Deployment]

REASONS = {
    "hostile-a": ["not finite", "norm", "for round 1, not 3"],
    "hostile-b": ["shape", "float64", "no 'echo' record"],
    "hostile-c": ["above the limit", "claims 1000000000 samples", "for round 1000000, not 3"],
    "raising": ["out of memory"] * 3,
}


def simulated_weights(folder: Path, **settings: Any) -> dict[str, bytes]:
    """The weights that the same run has without processes and without faults."""
    mapping = {**SMALL, **{key.replace("_", "-"): value for key, value in settings.items()}}
    flags = [word for key, value in mapping.items() for word in (f"--{key}", str(value))]
    done = feddac(["simulate", "--engine", "inline", *flags, "--out", "simulated"], folder)
    assert done.returncode == 0, done.stderr
    return weights_of(folder / "simulated")


def children(process: Process, program: str) -> list[int]:
    """The process ids of what `process` has started under this name."""
    listing = subprocess.run(["ps", "-e", "-ww", "-o", "pid,pgid,args"], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in listing.stdout.splitlines()[1:]]
    return [int(pid) for pid, group, arguments in rows if int(group) == process.pid and program in arguments]


def test_malformed_replies_and_a_device_that_always_raises(deploy: Deploy) -> None:
    deployment = deploy(devices=["honest", *REASONS], rounds=4)
    deployment.start(hostile=True)
    assert deployment.finish().completed, deployment.log
    deployment.require_whole(rounds=4)
    assert deployment.statuses("honest") == ["trained"] * 4
    assert [event["trained"] for event in deployment.events("round")] == [["honest"]] * 4
    for name, parts in REASONS.items():
        events = [event for event in deployment.events("device") if event["device"] == name]
        assert [event["status"] for event in events] == ["failed" if name == "raising" else "rejected"] * 3
        for event, part in zip(events, parts, strict=True):
            assert part in event["reason"]


def test_a_device_that_never_answers_costs_only_its_own_reply(deploy: Deploy) -> None:
    deployment = deploy(devices=["honest", "silent"], round_timeout=25.0)
    deployment.start(hostile=True)
    assert deployment.finish().completed, deployment.log
    deployment.require_whole(rounds=2)
    assert deployment.statuses("honest") == ["trained", "trained"]
    assert deployment.statuses("silent") == ["late", "late"]


def test_a_supernode_killed_in_mid_round(deploy: Deploy) -> None:
    deployment = deploy(devices=["honest", "slow"], round_timeout=25.0)
    deployment.start(hostile=True)
    deployment.wait_for((deployment.marks / "slow-1").exists)
    deployment.federation.supernodes["slow"].signal(signal.SIGKILL)
    assert deployment.finish().completed, deployment.log
    deployment.require_whole(rounds=2)
    assert deployment.statuses("honest") == ["trained", "trained"]
    assert set(deployment.statuses("slow")) <= {"late", "failed"}
    assert any("the SuperNode of slow has stopped" in line for line in deployment.log)


def test_a_device_that_joins_after_the_first_round(deploy: Deploy) -> None:
    deployment = deploy(devices=["patient", "late"], rounds=4, handshake_timeout=40.0)
    federation = deployment.federation
    federation.supernodes["late"].signal(signal.SIGKILL)  # before the run begins: the server has never heard of it
    federation.supernodes["late"].wait(10)
    deployment.start(hostile=True)
    deployment.wait_for(lambda: len(deployment.events("round")) == 1)
    late = federation.start_supernode(1)
    deployment.wait_for(lambda: late.log.read_text().count("SuperNode ID") == 2)
    (deployment.marks / "late-connected").touch()
    assert deployment.finish().completed, deployment.log
    deployment.require_whole(rounds=4)
    assert deployment.statuses("patient") == ["trained"] * 4
    assert deployment.statuses("late") == ["trained"]
    assert any("late joins cohort-0" in line for line in deployment.log)


def test_the_server_app_killed_and_the_run_submitted_again(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(rounds=3)
    deployment.start()
    deployment.wait_for(lambda: len(deployment.events("round")) == 1)
    assert deployment.federation.server is not None
    [server_app] = children(deployment.federation.server, "flwr-serverapp")
    subprocess.run(["kill", "-KILL", str(server_app)], check=True)
    status = deployment.finish()
    assert not status.completed
    assert "heartbeat" in status.details
    deployment.status = None
    deployment.start()
    assert deployment.finish().completed, deployment.log
    deployment.require_whole(rounds=3)
    assert weights_of(deployment.folder) == simulated_weights(tmp_path, rounds=3)


def test_the_superlink_restarted_with_its_database(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(rounds=3)
    deployment.start()
    deployment.wait_for(lambda: len(deployment.events("round")) == 1)
    assert deployment.federation.superlink is not None
    deployment.federation.superlink.signal(signal.SIGKILL)
    assert deployment.finish().completed, deployment.log
    deployment.require_whole(rounds=3)
    assert any("started again with its database" in line for line in deployment.log)
    assert weights_of(deployment.folder) == simulated_weights(tmp_path, rounds=3)
