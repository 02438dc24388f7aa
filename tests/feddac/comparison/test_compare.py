"""`feddac compare` end to end, on digits: runs, shared searches, what is done again and what is not, and the files."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import pytest

from common.errors import ConfigurationError
from common.progress import Silent
from common.wording import MISSING
from feddac.cli.main import run
from feddac.comparison.collect import collect
from feddac.comparison.execute import execute
from feddac.comparison.folders import prepare_folders
from feddac.comparison.plan import Experiment
from feddac.comparison.processes import OUTPUT
from feddac.comparison.sharing import has_searched
from server.run_folder import RunFolder
from simulation.environment import CODE_ROOT

THREE = '[methods.first]\n[methods.second]\n[methods.scratch]\ninitial-weights = "random"\n'


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "models").glob("*.safetensors"))}


def test_two_methods_by_three_seeds(
    write_experiment: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment, out = write_experiment(top='title = "Small & quick"\nseeds = [0, 1, 2]'), tmp_path / "out"
    command = ["compare", str(experiment), "--out", str(out), "--jobs", "2"]
    assert run(command) == 0
    shown = capsys.readouterr()
    for text in ("all runs", "plain", "scratch", "baseline", "comparison.html"):
        assert text in shown.out
    assert "6/6" in shown.err
    assert re.search(r"note: 6 runs \(2 methods, 3 seeds, 1 setting\), 2 at a time: about \d+", shown.err)

    result = json.loads((out / "comparison.json").read_text())
    (cell,) = result["cells"]
    plain, scratch = cell["methods"]
    for method in (plain, scratch):
        summaries = [
            json.loads((out / "all" / method["method"] / f"seed-{n}/summary.json").read_text()) for n in range(3)
        ]
        accuracies = [one["test_accuracy"] for one in summaries]
        assert method["accuracy"]["mean"] == pytest.approx(mean(accuracies))
        assert method["accuracy"]["deviation"] == pytest.approx(stdev(accuracies))
        assert method["params"]["mean"] < 15_000
        assert method["over_budget"]["mean"] == 0
        assert [one["round"] for one in method["curve"]] == [0, 1, 2]
        assert method["curve"][-1]["mean"] == pytest.approx(method["accuracy"]["mean"])
        assert method["late_accuracy"] == pytest.approx(method["accuracy"])  # of two rounds only the last is late
    assert plain["difference"] is None
    assert scratch["difference"]["mean"] == pytest.approx(scratch["accuracy"]["mean"] - plain["accuracy"]["mean"])
    low, high = scratch["difference"]["confidence_95"]
    assert low < scratch["difference"]["mean"] < high
    assert 0 < scratch["difference"]["p"] < 1
    assert scratch["difference"]["p_holm"] == scratch["difference"]["p"]  # the only comparison
    assert scratch["difference"]["effect_size"] * scratch["difference"]["mean"] > 0

    page = (out / "comparison.html").read_text()
    assert "Small &amp; quick" in page
    assert page.count("<svg") == 8  # the overview, rounds, simulated time, and five costs
    for outside in ("<script", "<link", "http://", "https://", "url(http"):
        assert outside not in page
    assert (out / "comparison.svg").read_text().startswith("<?xml")
    assert "MACs per device and round" in (out / "costs.svg").read_text()
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links == [f"all/{name}/seed-{n}/report.html" for name in ("plain", "scratch") for n in range(3)]
    assert all((out / link).is_file() for link in links)
    rows = list(csv.DictReader((out / "comparison.csv").open()))
    assert [(row["method"], row["seed"]) for row in rows] == [(m, n) for m in ("plain", "scratch") for n in "012"]
    assert [float(row["accuracy"]) for row in rows[:3]] == [one["accuracy"] for one in plain["runs"]]
    tex = (out / "comparison.tex").read_text()
    assert f"{100 * plain['accuracy']['mean']:.1f}\\,\\%" in tex
    assert tex.count(r"\\") == 3
    table = (out / "comparison.md").read_text()
    assert "over 3 seeds (0, 1, 2)" in table
    assert f"{100 * plain['accuracy']['mean']:.1f} %" in table

    before = {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}
    files = {path: path.read_bytes() for path in out.glob("comparison.*")}
    assert run(command) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")} == before
    assert {path: path.read_bytes() for path in out.glob("comparison.*")} == files


def test_a_search_taken_over_gives_the_same_weights(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    plan = small_experiment(top="", rest=THREE)
    prepare_folders(plan.runs, tmp_path / "shared")
    assert execute(plan.runs, tmp_path / "shared", 2, "inline", Silent()) == []
    for one in plan.runs[1:]:
        alone = tmp_path / "alone" / one.method
        prepare_folders([one], alone)
        assert execute([one], alone, 1, "inline", Silent()) == []
        folder = tmp_path / "shared" / one.folder
        assert weights(folder) == weights(alone / one.folder) != {}
        searched = [event["epoch"] for event in RunFolder(folder).events("search")]
        assert searched == [event["epoch"] for event in RunFolder(alone / one.folder).events("search")] != []
    first, second = (RunFolder(tmp_path / "shared" / one.folder) for one in plan.runs[:2])
    assert weights(first.path) == weights(second.path)
    folders = [RunFolder(tmp_path / "shared" / one.folder) for one in plan.runs]
    stages = [folder.read_summary()["stages"]["search"] for folder in folders]
    results = collect(plan, tmp_path / "shared")[0].methods
    # Whoever took the search over is charged for it; the one that did it is whose stage took longest.
    total = second.read_summary()["seconds_total"]
    assert results[1].outcomes[0].seconds == pytest.approx(total + max(stages) - stages[1])


def test_a_run_that_was_cut_short_goes_on(small_experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    plan = small_experiment(top="", rest="[methods.only]")
    prepare_folders(plan.runs, tmp_path / "whole")
    assert execute(plan.runs, tmp_path / "whole", 1, "inline", Silent()) == []
    folder = RunFolder(tmp_path / "whole" / plan.runs[0].folder)
    expected, searched = weights(folder.path), len(folder.events("search"))
    # As a crash before the last file leaves it.
    folder.summary_path.unlink()
    for path in folder.models_folder.iterdir():
        path.unlink()
    assert execute(plan.runs, tmp_path / "whole", 1, "inline", Silent()) == []
    assert weights(folder.path) == expected
    assert len(folder.events("search")) == searched


def test_a_run_that_fails_is_reported_and_the_others_go_on(
    write_experiment: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = '[methods.good]\n[methods.bad]\ndata = "/nowhere.parquet"\n'
    command = ["compare", str(write_experiment(top="", rest=bad)), "--out", str(tmp_path / "out")]
    assert run(command) == 1
    shown = capsys.readouterr()
    failed = [line for line in shown.err.splitlines() if line.startswith("Failed: ")]
    assert len(failed) == 1
    assert failed[0].startswith("Failed: all / bad / seed 0: ")
    assert "/nowhere.parquet" in failed[0]
    result = json.loads((tmp_path / "out/comparison.json").read_text())
    good, none = result["cells"][0]["methods"]
    assert good["seeds"] == [0]
    assert (none["seeds"], none["accuracy"]["mean"], none["difference"]["p"]) == ([], None, None)
    assert list(result["failed"]) == ["all/bad/seed-0"]
    assert "1 run failed" in (tmp_path / "out/comparison.html").read_text()
    costs_of_bad = (tmp_path / "out/comparison.md").read_text().split("| bad |")[2].splitlines()[0]
    assert set(costs_of_bad.replace(MISSING, "").split()) == {"|"}


def test_a_run_that_fails_is_not_told_to_differ_from_the_experiment(
    write_experiment: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With other settings the comparison would refuse its folder."""
    out, experiment = tmp_path / "out", write_experiment(top="", rest='[methods.only]\nmax-params = "100"\n')
    assert run(["compare", str(experiment), "--out", str(out)]) == 1
    assert "this works: feddac simulate --resume" in (out / "all/only/seed-0" / OUTPUT).read_text()
    [failed] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Failed: ")]
    assert "no architecture fits a budget below 100 parameters" in failed
    written = "".join((out / f"comparison.{kind}").read_text() for kind in ("md", "html", "json"))
    assert "no architecture fits a budget below 100 parameters" in written
    assert "this works" not in failed + written


def test_work_done_with_other_settings_is_not_mixed_in(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    plan, out = small_experiment(top="", rest="[methods.only]"), tmp_path / "out"
    prepare_folders(plan.runs, out)
    changed = small_experiment(top="", rest="[methods.only]\nrounds = 3")
    prepare_folders(changed.runs, out)  # Nothing was done yet.
    folder = RunFolder(out / plan.runs[0].folder)
    assert folder.read_config()["rounds"] == 3
    folder.write_summary({})
    with pytest.raises(ConfigurationError, match=r"all/only/seed-0 holds a run with rounds = 3, not 2"):
        prepare_folders(plan.runs, out)


def test_ctrl_c_ends_all_processes_and_the_command_can_be_repeated(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    process, folder = _endless(write_experiment, tmp_path)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("Interrupted; the same command goes on where this one stopped\n")
    assert "Interrupted; resume with" in (folder.path / OUTPUT).read_text()
    rounds = len(folder.events("round"))
    time.sleep(1)
    assert len(folder.events("round")) == rounds


@pytest.mark.slow
def test_kill_9_ends_the_runs_too_and_the_command_can_be_repeated(
    write_experiment: Callable[..., Path], tmp_path: Path
) -> None:
    process, folder = _endless(write_experiment, tmp_path)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while "Interrupted; resume with" not in (folder.path / OUTPUT).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    RunFolder.open(folder.path).__enter__().close()


def _endless(write_experiment: Callable[..., Path], place: Path) -> "tuple[subprocess.Popen[str], RunFolder]":
    """A comparison that will not end by itself, in a process of its own, and the folder of its only run, in rounds."""
    experiment, out = write_experiment(top="", rest="[methods.only]\nrounds = 100000"), place / "out"
    command = [sys.executable, "-P", "-m", "feddac.cli.main", "compare", str(experiment), "--out", str(out)]
    process = subprocess.Popen(command, cwd=CODE_ROOT, stderr=subprocess.PIPE, text=True, env=_environment())
    folder = RunFolder(out / "all/only/seed-0")
    while not has_searched(folder):
        assert process.poll() is None
        time.sleep(0.1)
    return process, folder


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CODE_ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--engine", "cluster"], "--engine must be one of ray, inline, batched, not 'cluster'"),
        (["--seeds", "0,x"], "--seeds must be whole numbers"),
        (["--rounds", "-1"], "rounds must be at least 0"),
    ],
)
def test_wrong_flags_are_one_line(
    more: list[str],
    message: str,
    write_experiment: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["compare", str(write_experiment()), "--out", str(tmp_path / "out"), *more]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "feddac compare methods --out runs/methods" in shown
    assert "[methods.overlap]" in shown
