"""The quality benchmark: every cell once, equal budgets and equal compute, and a page of its results."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.quality.page import write_page
from benchmarks.quality.protocol import Protocol
from benchmarks.quality.reading import sentences
from benchmarks.quality.summary import summarise
from benchmarks.quality.tasks import DRAWS, METHODS, Plan, Task, key_of
from benchmarks.quality.work import work
from common.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SIZES = ("--train-images", "300", "--validation-images", "60", "--test-images", "100", "--augment", "none")
SHORT = ("--epochs", "1", "--warmup-epochs", "1", "--epochs-per-step", "1", "--step-share", "0.5")
SEARCHED: dict[str, Any] = {
    "event": "search",
    "seed": 0,
    "group": "macs",
    "epochs": 10,
    "whole_network_epochs": 6.0,
    "curve": [{"epoch": 1, "macs": 1000}],
    "found": {
        "50%": {"epochs": 4, "macs": 500},
        "25%": {"epochs": 6, "macs": 250},
        "12%": {"epochs": 8, "macs": 120},
        "6%": {"epochs": 10, "macs": 60},
    },
}


def tasks(rows: list[dict[str, Any]], methods: tuple[str, ...] = ("uniform", "dac")) -> list[tuple[Task, bool]]:
    return list(Plan(Protocol(epochs=15), [0], ["macs"], methods).tasks(rows))


def test_nothing_but_searches_can_begin_before_the_search() -> None:
    assert [task.kind for task, ready in tasks([]) if ready] == ["search"]


def test_rules_in_epochs_give_plain_scaling_the_epochs_of_the_search() -> None:
    epochs = {(task.budget, task.rule): task.epochs for task, _ in tasks([SEARCHED]) if task.method == "uniform"}
    assert {epochs[budget, "family"] for budget in SEARCHED["found"]} == {15 + math.ceil(10 / 4)}
    assert [epochs[budget, "alone"] for budget in SEARCHED["found"]] == [19, 21, 23, 25]


def test_at_equal_work_small_networks_train_longer() -> None:
    epochs = [task.epochs for task, _ in tasks([SEARCHED]) if task.rule == "work"]
    assert epochs == [15 + 3, 15 + 6, 15 + 13, 15 + 25]  # a quarter of 6 epochs of the whole network each


def test_dac_is_trained_as_long_as_the_others_without_their_addition() -> None:
    cells = [task for task, _ in tasks([SEARCHED]) if task.method == "dac"]
    assert {(task.epochs_before, task.epochs) for task in cells} == {(10, 15)}


def test_pruning_has_a_whole_network_trained_for_the_epochs_or_the_work_of_the_search() -> None:
    found = [task for task, _ in tasks([SEARCHED], ("magnitude",)) if task.method == "magnitude"]
    assert [(task.rule, task.epochs) for task in found if task.kind == "pretrain"] == [("", 10), ("work", 6)]
    cells = {(task.rule, task.epochs_before, task.epochs) for task in found if task.kind == "cell"}
    assert cells == {("searched", 10, 15), ("work", 6, 15)}


def test_each_pruned_cell_waits_for_its_own_pretraining() -> None:
    pretrained = {"event": "pretrain", "seed": 0, "group": "macs", "method": "magnitude", "rule": "work"}
    after = tasks([SEARCHED, pretrained], ("magnitude",))
    assert {task.rule for task, ready in after if ready and task.kind == "cell"} == {"work"}


def test_what_is_done_is_not_done_again_and_taught_cells_wait_for_their_teacher() -> None:
    methods = ("uniform", "dac-taught")
    before = tasks([SEARCHED], methods)
    assert not any(ready for task, ready in before if task.method == "dac-taught")
    whole = {"event": "whole", "seed": 0, "group": "macs", "method": "whole", "budget": "100%", "rule": "family"}
    after = tasks([SEARCHED, whole], methods)
    assert all(ready for task, ready in after if task.method == "dac-taught")
    assert len(after) == len(before) - 1


def test_skipped_budgets_have_no_cells() -> None:
    plan = Plan(Protocol(), [0], ["macs"], ["dac", "uniform"], skipped=["100%", "50%", "6%"])
    assert {task.budget for task, _ in plan.tasks([]) if task.kind != "search"} == {"25%", "12%"}


def test_a_method_without_a_network_so_small_ends_nothing_and_has_no_line(tmp_path: Path) -> None:
    protocol = Protocol(train_images=200, validation_images=50, test_images=50, augment="none")
    task = Task("cell", 0, "memory", "width", "half memory", "family", 1)
    row = work(task, "digits", protocol, tmp_path, torch.device("cpu"))
    assert row["unfit"].startswith("no width multiplier of mobilenet_v2 fits")
    assert key_of(row) == task.key
    assert summarise([row]) == []


def cell(method: str, rule: str, seed: int, *, compute: float, accuracy: float, before: int = 0) -> dict[str, Any]:
    costs = {"macs": 250, "params": 10, "peak_memory_bytes": 10}
    spent = {"epochs": 12, "epochs_before": before, "whole_network_epochs": compute}
    names = {"event": "cell", "seed": seed, "group": "macs", "method": method, "budget": "25%", "rule": rule}
    return {**names, **costs, **spent, "test_accuracy": accuracy}


def test_what_a_baseline_had_is_told_as_a_share_of_what_the_search_had() -> None:
    rows = [{**SEARCHED, "seed": seed} for seed in (0, 1, 2)]
    for seed in (0, 1, 2):  # the search's 6 epochs, divided by 4 budgets, and 3 more: 4.5 against 9
        rows.append(cell("dac", "searched", seed, compute=3.0, accuracy=0.6 + seed / 100, before=10))
        rows.append(cell("uniform", "family", seed, compute=9.0, accuracy=0.5 + seed / 200))
    [line] = [line for line in sentences(summarise(rows), rows) if line.startswith("- Against")]
    assert line.startswith("- Against uniform scaling (family), which had 2.00 to 2.00 of DAC's compute, DAC is ahead")


def test_a_taught_cell_is_charged_its_share_of_the_teacher_and_the_teachers_answers() -> None:
    teacher = {**cell("whole", "family", 0, compute=16.0, accuracy=0.7), "event": "whole", "budget": "100%"}
    rows = [SEARCHED, teacher, cell("uniform-taught", "family", 0, compute=3.0, accuracy=0.5)]
    [taught] = [one for one in summarise(rows) if one.method == "uniform-taught"]
    assert taught.compute == 3 + 16 / 4 + 12 / 3  # a forward pass is a third of a training step


def test_there_is_no_page_of_no_results(tmp_path: Path) -> None:
    (tmp_path / "quality.jsonl").write_text('{"protocol": "one", "event": "protocol", "data": "digits"}\n')
    with pytest.raises(DataError, match="no finished cell"):
        write_page(tmp_path / "quality.jsonl", "one", tmp_path)
    assert not (tmp_path / "quality.md").exists()


WAITS_FOR_ITS_WORKER = """
import os, time
from benchmarks.quality.processes import pool_of

if __name__ == "__main__":
    with pool_of(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 3600).result()
"""


@pytest.mark.slow  # a worker imports torch
def test_workers_end_with_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WAITS_FOR_ITS_WORKER)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as main:
        assert main.stdout is not None
        worker = int(main.stdout.readline())
        os.kill(worker, 0)
        main.kill()
    deadline = time.monotonic() + 60
    while is_alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def benchmark(folder: Path, *options: str) -> None:
    """Run it on a few digits."""
    files = ("--out", str(folder / "quality.jsonl"), "--work", str(folder))
    command = [sys.executable, "benchmarks/quality", "--data", "digits", *files, "--seeds", "0", *SIZES, *SHORT]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *options], cwd=ROOT, check=True, env=environment)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    benchmark(folder, "--groups", "macs,memory")
    return folder


@pytest.mark.slow
def test_every_method_has_a_cell_within_the_same_budget(results: Path) -> None:
    rows = [json.loads(line) for line in (results / "quality.jsonl").read_text().splitlines()]
    cells = {(row["budget"], row["method"], row["rule"]): row for row in rows if row["event"] == "cell"}
    full = next(row for row in rows if row["event"] == "whole")
    for share, name in ((0.5, "50%"), (0.25, "25%"), (0.12, "12%"), (0.06, "6%")):
        rules = [(method, rule) for method in METHODS for rule in METHODS[method]]
        assert all(cells[name, method, rule]["macs"] <= share * full["macs"] for method, rule in rules)
    assert cells["half memory", "dac", "searched"]["peak_memory_bytes"] <= full["peak_memory_bytes"] / 2
    dac, fresh = cells["25%", "dac", "searched"], cells["25%", "dac-fresh", "family"]
    assert all(dac[name] == fresh[name] for name in ("macs", "params", "peak_memory_bytes"))
    assert len({cells["25%", draw, "family"]["params"] for draw in DRAWS}) > 1


@pytest.mark.slow
def test_what_is_there_is_not_done_again_and_the_page_stays(results: Path) -> None:
    before = {name: (results / name).read_bytes() for name in ("quality.jsonl", "quality.md", "quality.svg")}
    benchmark(results, "--groups", "macs,memory")
    assert {name: (results / name).read_bytes() for name in before} == before


@pytest.mark.slow
def test_the_page_has_a_line_per_budget_method_and_rule(results: Path) -> None:
    page = (results / "quality.md").read_text()
    rules = sum(len(METHODS[method]) for method in METHODS if method not in DRAWS) + 1
    assert page.count("\n| 25% |") == rules
    assert "<svg" in (results / "quality.svg").read_text()


@pytest.mark.slow
def test_latencies_are_of_all_networks_that_need_no_weights_to_be_known(results: Path) -> None:
    benchmark(results, "--groups", "macs,memory", "--latency")
    rows = [json.loads(line) for line in (results / "quality.jsonl").read_text().splitlines()]
    times = {(row["budget"], row["method"]): row["milliseconds"] for row in rows if row["event"] == "latency"}
    assert all(time > 0 for time in times.values())
    assert {method for _, method in times} == {"dac", "dac-fresh", "uniform", "shallow", "width", "whole"}
    lines = (results / "quality.md").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("| 25% | uniform scaling | family ")]
    assert float(line.split("|")[8]) == pytest.approx(times["25%", "uniform"], abs=0.005)
