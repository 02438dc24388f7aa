"""`feddac simulate` as a user runs it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import FEDDAC, environment, feddac, weights_of


def events(run_folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_a_run_ends_with_a_table_a_run_folder_and_a_report(small_run: list[str], tmp_path: Path) -> None:
    done = feddac(["simulate", *small_run, "--engine", "inline", "--out", "run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cohort-0" in done.stdout
    assert "cohort-2" in done.stdout
    assert "Warning" not in done.stderr + done.stdout
    folder = tmp_path / "run"
    for name in ("config.toml", "budgets.json", "metrics.jsonl", "summary.json", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert len(weights_of(folder)) == len(list((folder / "architectures").glob("*.json"))) == 3


def test_every_run_folder_says_what_it_cost(small_run: list[str], tmp_path: Path) -> None:
    feddac(["simulate", *small_run, "--engine", "inline", "--out", "run"], tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["peak_rss_bytes"] > 10**8
    assert all(summary["stages"][stage] > 0 for stage in ("handshake", "search", "rounds"))
    rounds = events(tmp_path / "run", "round")
    assert summary["bytes_down"] >= sum(int(str(event["bytes_down"])) for event in rounds) > 0
    for cohort in summary["cohorts"]:
        assert cohort["bytes_moved"] > 2 * 4 * cohort["params"]


def test_no_architecture_exceeds_the_budget_of_a_device_that_got_it(small_run: list[str], tmp_path: Path) -> None:
    feddac(["simulate", *small_run, "--engine", "inline", "--out", "run"], tmp_path)
    budgets = json.loads((tmp_path / "run" / "budgets.json").read_text())
    assert len(budgets) == 4
    for device in budgets:
        costs = json.loads((tmp_path / "run" / "architectures" / f"{device['cohort']}.json").read_text())["costs"]
        for resource in ("macs", "params", "peak_memory_bytes"):
            assert device[resource] is None or costs[resource] < device[resource]


def test_ray_and_inline_end_with_the_same_weights_and_so_does_a_second_run(
    small_run: list[str], tmp_path: Path
) -> None:
    for name, engine in (("ray", "ray"), ("inline", "inline"), ("again", "inline")):
        done = feddac(["simulate", *small_run, "--engine", engine, "--out", name], tmp_path)
        assert done.returncode == 0, done.stderr
    assert weights_of(tmp_path / "ray") == weights_of(tmp_path / "inline") == weights_of(tmp_path / "again")


def test_another_seed_gives_other_weights(small_run: list[str], tmp_path: Path) -> None:
    for seed in ("0", "1"):
        feddac(["simulate", *small_run, "--engine", "inline", "--seed", seed, "--out", seed], tmp_path)
    assert weights_of(tmp_path / "0") != weights_of(tmp_path / "1")


@pytest.mark.parametrize(("event", "count"), [("search", 2), ("round", 5)])
def test_a_run_killed_anywhere_resumes_to_the_same_weights(
    small_run: list[str], tmp_path: Path, event: str, count: int
) -> None:
    arguments = [*small_run, "--rounds", "6", "--engine", "inline"]
    feddac(["simulate", *arguments, "--out", "whole"], tmp_path)
    process = subprocess.Popen(
        [*FEDDAC, "simulate", *arguments, "--out", "killed"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and metrics.read_text().count(f'"{event}"') >= count:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    resumed = feddac(["simulate", "--resume", "killed", "--engine", "inline"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    numbers = [(e["round"], e["cohort"]) for e in events(tmp_path / "killed", "round")]
    assert len(numbers) == len(set(numbers)) == 6 * 3
