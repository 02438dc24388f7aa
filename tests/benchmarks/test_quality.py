"""The quality benchmark: every cell once, equal budgets, and a page of its results."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LEARNERS = {"dac", "dac-inherited", "dac-scratch", "magnitude", "slimming"}
WIDTHS = {"width", "width-inside", "width-distilled", "width-long"}
METHODS = LEARNERS | WIDTHS | {"uniform", "uniform-long", "uniform-taught", "random"}


def benchmark(folder: Path, *options: str) -> list[dict[str, Any]]:
    """Run it on a few digits; returns the rows of its file."""
    sizes = ["--train-images", "80", "--validation-images", "20", "--test-images", "40"]
    short = ["--epochs", "1", "--warmup-epochs", "1", "--epochs-per-step", "1", "--step-share", "0.5"]
    out = folder / "quality.jsonl"
    command = [sys.executable, "benchmarks/quality.py", "--data", "digits", "--out", str(out), "--work", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *sizes, *short, *options], cwd=ROOT, check=True, env=environment)
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    benchmark(folder, "--seeds", "0", "--budgets", "26M,95M")
    return folder


def test_every_method_has_a_cell_within_the_same_budget(results: Path) -> None:
    rows = [json.loads(line) for line in (results / "quality.jsonl").read_text().splitlines()]
    cells = {(row["budget"], row["method"]): row for row in rows if row["event"] == "cell"}
    whole = {("95M", method) for method in ("full", "full-long", "dac")}
    assert set(cells) == whole | {("26M", method) for method in METHODS}
    full, dac, width = cells["95M", "full"], cells["26M", "dac"], cells["26M", "width-inside"]
    assert width["macs"] <= dac["macs"] < 0.4 * full["macs"]
    assert width["params"] <= dac["params"] < 0.4 * full["params"]
    assert all(cells["26M", method]["macs"] < 0.4 * full["macs"] for method in METHODS)
    assert {name: cells["26M", "dac"][name] for name in ("macs", "params")} == {
        name: cells["26M", "dac-scratch"][name] for name in ("macs", "params")
    }


def test_final_trainings_are_equally_long_except_the_longer_one(results: Path) -> None:
    rows = [json.loads(line) for line in (results / "quality.jsonl").read_text().splitlines()]
    searched = next(row["epochs"] for row in rows if row["event"] == "search")
    epochs = {row["method"]: (row["epochs_before"], row["epochs"]) for row in rows if row["event"] == "cell"}
    longer = ("width-long", "full-long", "uniform-long", "uniform-taught")
    assert {epochs.pop(method) for method in longer} == {(0, 1 + searched)}
    assert {epochs.pop(method) for method in LEARNERS} == {(searched, 1)}
    assert set(epochs.values()) == {(0, 1)}


def test_what_is_there_is_not_done_again(results: Path) -> None:
    before = (results / "quality.jsonl").read_text()
    benchmark(results, "--seeds", "0", "--budgets", "26M,95M")
    assert (results / "quality.jsonl").read_text() == before


def test_the_page_has_a_line_per_method_and_budget(results: Path) -> None:
    script = ["benchmarks/quality_plot.py", str(results / "quality.jsonl")]
    subprocess.run([sys.executable, *script], cwd=ROOT, check=True)
    page = (results / "quality.md").read_text()
    assert page.count("\n| 26M |") == len(METHODS)
    assert page.count("\n| 95M |") == 3
    assert "Search cost:" in page
    assert "<svg" in (results / "quality.svg").read_text()
