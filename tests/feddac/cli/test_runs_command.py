"""`feddac runs` and `feddac report` on folders of every kind."""

import html
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from dac.files import load_member
from feddac.cli.main import run
from server.run_folder import RunFolder
from tests.server.report.fake_run import write_fake_run

TINY = ["--model", "mlp", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    assert run(["train", *TINY, "--epochs", "2", "--out", str(folder / "training")]) == 0
    teacher = ["--teacher", str(folder / "training/architectures/trained.json"), "--distillation", "0.9"]
    assert run(["train", *TINY, "--epochs", "1", *teacher, "--out", str(folder / "taught")]) == 0
    quick = ["--warmup-epochs", "1", "--epochs-per-step", "0", "--fine-tune-epochs", "0"]
    assert run(["search", *TINY, *quick, "--max-params", "9k,7k", "--out", str(folder / "found")]) == 0
    write_fake_run(folder / "cell/method/seed-0", rounds=4)
    write_fake_run(folder / "stopped", rounds=3, finished=False)
    return folder


def test_every_kind_of_folder_is_listed_with_its_result(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {name: next(line for line in lines if name in line) for name in ("training", "found", "seed-0", "stopped")}
    for name, words in {
        "training": ["train ", "2 of 2", " %"],
        "found": ["search ", "2 architectures"],
        "seed-0": ["simulate ", "4 of 4", " %"],
        "stopped": ["simulate ", "3 of 3"],
    }.items():
        assert all(word in rows[name] for word in words), rows[name]
    assert "%" not in rows["found"] + rows["stopped"]


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_fake_run(tmp_path / "good", rounds=2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/config.toml").write_text("rounds = ")
    assert run(["runs", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "damaged" in output
    assert "2 of 2" in output


@pytest.mark.parametrize("name", ["training", "found"])
def test_a_search_and_a_training_have_pages_of_their_own_kind(name: str, runs: Path) -> None:
    assert run(["report", str(runs / name)]) == 0
    page = (runs / name / "report.html").read_text()
    if name == "training":
        accuracy = RunFolder.open(runs / name).read_summary()["test_accuracy"]
        assert f"{100 * accuracy:.1f}" in page
        assert "Learning, epoch by epoch" in page
    else:
        assert "2 architectures for digits" in page
        assert "budget-1" in page
        assert "below 9" in page
        assert "feddac search --max-params 9000,7000 --config config.toml" in page
    assert "Bytes moved" not in page


@pytest.mark.parametrize("name", ["training", "taught", "found"])
def test_the_command_that_a_page_prints_does_the_same_again(
    name: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(runs / name, tmp_path / name)
    assert run(["report", str(folder)]) == 0
    [command] = re.findall(r"<pre[^>]*>feddac (.*?)</pre>", (folder / "report.html").read_text())
    monkeypatch.chdir(folder)
    assert run(shlex.split(html.unescape(command))) == 0
    for path in sorted((folder / "architectures").glob("*.json")):
        first, again = load_member(path), load_member(folder / "again/architectures" / path.name)
        assert first.architecture == again.architecture
        assert all(torch.equal(value, again.state[key]) for key, value in first.state.items())


def test_an_unfinished_one_says_how_to_go_on(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as folder:
        folder.write_config({"data": "digits", "epochs": 9})
        folder.append("train", epoch=1, train_loss=1.0, train_accuracy=0.5, validation_accuracy=0.5)
    assert run(["report", str(folder.path)]) == 0
    assert "feddac train --resume FOLDER" in folder.report_path.read_text()


def test_nothing_to_list_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", str(tmp_path)]) == 2
    assert run(["runs", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
