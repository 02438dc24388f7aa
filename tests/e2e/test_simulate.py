"""`feddac simulate` as a user runs it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e.conftest import FEDDAC, Finished, environment, feddac, weights_of
from tests.examples import slow


def events(run_folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_a_run_ends_with_a_table_a_run_folder_and_a_report(finished_run: Finished) -> None:
    printed = finished_run.process.stdout
    assert "cohort-0" in printed
    assert "cohort-2" in printed
    assert "Warning" not in finished_run.process.stderr + printed
    started = [line.partition(":")[0] for line in finished_run.process.stderr.splitlines() if ": started" in line]
    assert started == ["devices", "handshake", "search", "rounds", "result", "report"]
    folder = finished_run.folder
    for name in ("config.toml", "budgets.json", "metrics.jsonl", "summary.json", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert len(weights_of(folder)) == len(list((folder / "architectures").glob("*.json"))) == 3


def test_every_run_folder_says_what_it_cost(finished_run: Finished) -> None:
    summary = json.loads((finished_run.folder / "summary.json").read_text())
    assert summary["peak_rss_bytes"] > 10**8
    assert all(summary["stages"][stage] > 0 for stage in ("handshake", "search", "rounds"))
    steps = events(finished_run.folder, "step")
    assert summary["bytes_down"] == sum(int(str(event["bytes_down"])) for event in steps) > 0
    for cohort in summary["cohorts"]:
        assert cohort["bytes_down"] + cohort["bytes_up"] > 2 * 4 * cohort["params"]


def test_no_architecture_exceeds_the_budget_of_a_device_that_got_it(finished_run: Finished) -> None:
    budgets = json.loads((finished_run.folder / "budgets.json").read_text())
    assert len(budgets) == 4
    for device in budgets:
        path = finished_run.folder / "architectures" / f"{device['cohort']}.json"
        costs = json.loads(path.read_text())["costs"]
        for resource in ("macs", "params", "peak_memory_bytes"):
            assert device[resource] is None or costs[resource] < device[resource]


@pytest.mark.slow
def test_a_second_run_on_ray_ends_with_the_same_partitions_architectures_and_weights(
    finished_run: Finished, small_run: list[str], tmp_path: Path
) -> None:
    done = feddac(["simulate", *small_run, "--engine", "ray", "--out", "ray"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "/" not in line and ": " not in line] == []
    again = tmp_path / "ray"
    assert weights_of(again) == weights_of(finished_run.folder)
    for part in ("budgets.json", *(f"architectures/cohort-{number}.json" for number in range(3))):
        assert (again / part).read_bytes() == (finished_run.folder / part).read_bytes()


def test_the_batched_engine_ends_as_the_inline_engine_but_for_rounding(
    finished_run: Finished, small_run: list[str], tmp_path: Path
) -> None:
    done = feddac(["simulate", *small_run, "--engine", "batched", "--out", "run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "one by one" not in done.stderr
    assert (tmp_path / "run/report.html").stat().st_size > 0
    names = sorted(path.name for path in (finished_run.folder / "models").glob("*.safetensors"))
    assert names == sorted(path.name for path in (tmp_path / "run/models").glob("*.safetensors"))
    for name in names:
        ours, theirs = load_file(tmp_path / "run/models" / name), load_file(finished_run.folder / "models" / name)
        for key, expected in theirs.items():
            np.testing.assert_allclose(ours[key], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_sigterm_ends_as_ctrl_c_does(engine: str, small_run: list[str], tmp_path: Path) -> None:
    arguments = [*small_run, "--rounds", "1000", "--engine", engine, "--out", "run"]
    process = subprocess.Popen(
        [*FEDDAC, "simulate", *arguments],
        cwd=tmp_path,
        env={**environment(tmp_path), "FEDDAC_TEST_MARK": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and '"round"' in metrics.read_text()):
        time.sleep(0.05)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == "Interrupted; resume with: feddac simulate --resume run"
    deadline = time.monotonic() + 10  # Ray's own processes notice within seconds that it was shut down
    while processes_with(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_with(str(tmp_path)) == []


def processes_with(mark: str) -> list[int]:
    """Processes that were started with this mark in their environment and are still there, zombies aside."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"FEDDAC_TEST_MARK={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_quiet_prints_the_result_alone(small_run: list[str], tmp_path: Path) -> None:
    done = feddac(["simulate", *small_run, "--rounds", "1", "--quiet", "--out", "run"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cohort-0" in done.stdout


@pytest.mark.slow
def test_another_seed_gives_other_weights(finished_run: Finished, small_run: list[str], tmp_path: Path) -> None:
    feddac(["simulate", *small_run, "--seed", "1", "--out", "other"], tmp_path)
    ours, theirs = weights_of(finished_run.folder), weights_of(tmp_path / "other")
    assert ours.keys() == theirs.keys()
    assert all(ours[cohort] != theirs[cohort] for cohort in ours)


@pytest.mark.parametrize(
    ("event", "count", "engine"), [("round", 5, "inline"), *slow(("search", 2, "inline"), ("round", 5, "batched"))]
)
def test_a_run_killed_anywhere_resumes_to_the_same_weights(
    small_run: list[str], tmp_path: Path, event: str, count: int, engine: str
) -> None:
    arguments = [*small_run, "--rounds", "6", "--engine", engine]
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
    resumed = feddac(["simulate", "--resume", "killed", "--engine", engine], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    numbers = [(e["round"], e["cohort"]) for e in events(tmp_path / "killed", "round")]
    assert len(numbers) == len(set(numbers)) == 6 * 3
