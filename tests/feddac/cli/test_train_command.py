"""`feddac train`: an architecture from a file, a published file or a width; the same result after a kill."""

from pathlib import Path
from typing import Any

import pytest
import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.models.description import BaseNetwork
from common.optimizers import SGD
from dac.files import Member, load_member, save_member
from dac.published import write_published
from feddac.cli.main import run
from server.run_folder import RunFolder
from tests.feddac.cli.errors import assert_one_clear_line

DIGITS = BaseNetwork("cnn", (1, 8, 8), 10)
FAST = ["--epochs", "2", "--batch-size", "128", "--learning-rate", "0.05"]


def saved(folder: Path, architecture: Architecture, seed: int = 5) -> Path:
    path = folder / "member.json"
    state = architecture.build(seed).state_dict()
    save_member(path, Member(architecture, DeviceBudget(macs=10**9), state, 0.5), name="m", parent=None, seed=0)
    return path


@pytest.fixture
def member(tmp_path: Path) -> Path:
    return saved(tmp_path, Architecture.with_kept(DIGITS, {"conv2": (0, 2, 5, 7, 8, 9, 11, 13)}))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    base = BaseNetwork("mobilenet_v2", (1, 8, 8), 10, width=0.25)
    small = Architecture.with_kept(base, {"block16.inner": range(20)})
    path = tmp_path / "net_cfg.json"
    write_published(path, {"0": Architecture.full(base), "7": small})
    return path


def result(folder: Path) -> Member:
    return load_member(folder / "architectures" / "trained.json")


def test_a_found_architecture_is_trained_from_its_weights(
    member: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(["train", str(member), *FAST, "--out", str(out)]) == 0
    trained = result(out)
    assert trained.architecture == load_member(member).architecture
    assert trained.budget == DeviceBudget(macs=10**9)
    start = load_member(out / "checkpoint" / "start.json").state
    assert all(torch.equal(tensor, start[name]) for name, tensor in load_member(member).state.items())
    summary = RunFolder.open(out).read_summary()
    assert summary["validation_accuracy"] == trained.validation_accuracy
    assert 0 <= summary["test_accuracy"] <= 1
    assert [event["epoch"] for event in RunFolder.open(out).events("train")] == [1, 2]
    assert "test" in capsys.readouterr().out


def test_from_scratch_ignores_the_weights(member: Path, tmp_path: Path) -> None:
    assert run(["train", str(member), "--from-scratch", "--epochs", "0", "--out", str(tmp_path / "run")]) == 0
    before, after = load_member(member).state, result(tmp_path / "run").state
    assert not torch.equal(before["conv1.weight"], after["conv1.weight"])


@pytest.mark.parametrize(
    ("choice", "inner"),
    [(["--name", "7"], 20), (["--name", "0"], 240), (["--max-macs", "10M"], 240), (["--max-params", "250k"], 20)],
)
def test_a_published_file_is_chosen_from_by_key_or_budget(
    published: Path, tmp_path: Path, choice: list[str], inner: int
) -> None:
    out = tmp_path / "run"
    assert run(["train", str(published), *choice, "--width", "0.25", "--epochs", "0", "--out", str(out)]) == 0
    assert result(out).architecture.sizes["block16.inner"] == inner


def test_without_a_file_the_width_multiplier_counts(tmp_path: Path) -> None:
    arguments = ["--model", "cnn", "--width", "0.5", "--epochs", "0"]
    assert run(["train", *arguments, "--out", str(tmp_path / "run")]) == 0
    assert result(tmp_path / "run").architecture == Architecture.full(BaseNetwork("cnn", (1, 8, 8), 10, width=0.5))


def test_a_killed_training_ends_with_the_same_weights(
    member: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(["train", str(member), *FAST, "--out", str(whole)]) == 0

    step, steps = SGD.step, 0

    def step_until_ctrl_c(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 13:  # nine steps make an epoch
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SGD, "step", step_until_ctrl_c)
        assert run(["train", str(member), *FAST, "--out", str(killed)]) == 130
    assert [event["epoch"] for event in RunFolder.open(killed).events()] == [1]
    assert not (killed / "architectures" / "trained.json").exists()
    member.unlink()  # the folder has all it needs
    assert run(["train", "--resume", str(killed)]) == 0
    expected, found = result(whole), result(killed)
    assert all(torch.equal(tensor, found.state[name]) for name, tensor in expected.state.items())
    assert RunFolder.open(killed).read_summary() == RunFolder.open(whole).read_summary()
    assert RunFolder.open(killed).events() == RunFolder.open(whole).events()


def test_a_teacher_is_learnt_from_and_kept_for_a_resumption(
    member: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "large"
    place.mkdir()
    teacher = saved(place, Architecture.full(DIGITS), seed=9)
    assert run(["train", str(member), *FAST, "--out", str(tmp_path / "alone")]) == 0
    flags = [str(member), *FAST, "--distillation", "0.9"]
    assert run(["train", *flags, "--teacher", str(teacher), "--out", str(tmp_path / "taught")]) == 0
    alone, taught = result(tmp_path / "alone").state, result(tmp_path / "taught").state
    assert not torch.equal(alone["conv1.weight"], taught["conv1.weight"])

    step, steps = SGD.step, 0

    def step_until_ctrl_c(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 13:
            raise KeyboardInterrupt
        return step(*arguments)

    killed = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(SGD, "step", step_until_ctrl_c)
        assert run(["train", *flags, "--teacher", str(teacher), "--out", str(killed)]) == 130
    teacher.unlink()
    assert run(["train", "--resume", str(killed)]) == 0
    assert all(torch.equal(tensor, taught[name]) for name, tensor in result(killed).state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--width", "0.5", "--model", "resnet8"], "model = 'mobilenet_v2', not 'resnet8'"),
        (["--test-images", "30"], "test-images = 0, not 30"),
        (["--epochs", "3"], "epochs = 2, not 3"),
        (["--seed", "1"], "seed = 0, not 1"),
    ],
)
def test_other_settings_cannot_continue_a_training(
    change: list[str], message: str, member: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(["train", str(member), *FAST, "--out", str(out)]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    assert run(["train", "--resume", str(out), *change]) == 1
    assert_one_clear_line(capsys.readouterr().err, message)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert run(["train", "--resume", str(out), "--accelerator", "cpu"]) == 0
    assert RunFolder.open(out).read_config()["accelerator"] == "cpu"


def test_before_the_first_checkpoint_what_the_start_does_not_depend_on_may_change_and_is_written_back(
    member: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(["train", str(member), "--learning-rate", "1e30", "--out", str(out)]) == 1
    assert_one_clear_line(capsys.readouterr().err, "training diverged in epoch 1")
    again = ["train", "--resume", str(out)]
    for change, code, message in (
        (["--width", "0.5"], 1, "width = 1.0, not 0.5"),
        (["--test-images", "30"], 1, "test-images = 0, not 30"),
        (["--seed", "1"], 1, "seed = 0, not 1"),
        (["--distillation", "0.5"], 2, "distillation = 0.5 would have no effect without --teacher"),
    ):
        assert run([*again, *change]) == code
        assert_one_clear_line(capsys.readouterr().err, message)
    assert run([*again, *FAST]) == 0
    config = RunFolder.open(out).read_config()
    assert (config["learning-rate"], config["epochs"], config["batch-size"]) == (0.05, 2, 128)
    assert run(again) == 0
    assert [event["epoch"] for event in RunFolder.open(out).events("train")] == [1, 2]


def test_a_configuration_file_is_read_and_flags_win(tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text('model = "cnn"\nepochs = 5\nseed = 4\n')
    assert run(["train", "--config", str(config), "--epochs", "0", "--out", str(tmp_path / "run")]) == 0
    written = RunFolder.open(tmp_path / "run").read_config()
    assert (written["model"], written["epochs"], written["seed"]) == ("cnn", 0, 4)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{member}", "--name", "7"], 2, "choose from a net_cfg.json"),
        (["{member}", "--width", "0.5"], 2, "leave out --width"),
        (["{published}", "--width", "0.25"], 2, "choose from a net_cfg.json by --name"),
        (["{published}", "--width", "0.25", "--name", "7", "--max-macs", "1M"], 2, "choose from a net_cfg.json by"),
        (["{published}", "--width", "0.25", "--name", "8"], 1, "no architecture '8'; the file has 0, 7"),
        (["{published}", "--width", "0.25", "--max-macs", "1k"], 1, "lies below 1,000 thop MACs"),
        (["{published}", "--name", "7"], 1, "change --width"),
        (["{published}", "--width", "0.25", "--name", "7", "--inherit"], 2, "--inherit needs"),
        (["--inherit"], 2, "--inherit needs"),
        (["--name", "7"], 2, "choose from a net_cfg.json"),
        (["{corrupt}"], 1, "cannot read the architecture file"),
        (["{missing}"], 1, "cannot read the architecture file"),
        (["{member}", "--teacher", "{missing}"], 1, "cannot read the architecture file"),
        (["{member}", "--teacher", "{other}"], 1, "is for images of 3x32x32 and 10 classes, but digits has 1x8x8"),
        (["{member}", "--distillation", "0.5"], 2, "distillation = 0.5 would have no effect without --teacher"),
        (["--model", "cnn", "--stem-stride", "2"], 2, "no effect without --model mobilenet_v2"),
        (["{other}"], 1, "is for images of 3x32x32 and 10 classes, but digits has 1x8x8 and 10"),
        (["--epochs", "-1"], 2, "epochs must be at least 0"),
        (["--config", "{rounds}"], 2, "unknown setting 'rounds'"),
        (["--resume", "/proc"], 1, "there is no run in /proc"),
        (["{member}", "--resume", "/proc"], 2, "leave out file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    code: int,
    message: str,
    member: Path,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corrupt, rounds, elsewhere = tmp_path / "corrupt.json", tmp_path / "rounds.toml", tmp_path / "elsewhere"
    corrupt.write_text(member.read_text()[:50])
    rounds.write_text("rounds = 3\n")
    elsewhere.mkdir()
    names = {
        "{member}": member,
        "{published}": published,
        "{corrupt}": corrupt,
        "{missing}": tmp_path / "none.json",
        "{other}": saved(elsewhere, Architecture.full(BaseNetwork("cnn", (3, 32, 32), 10))),
        "{rounds}": rounds,
    }
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert run(["train", *(str(names.get(one, one)) for one in arguments)]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert_one_clear_line(output.err, message)
    assert list(here.iterdir()) == []


def test_a_damaged_checkpoint_is_one_line(member: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run(["train", str(member), *FAST, "--out", str(out)]) == 0
    checkpoint = out / "checkpoint" / "train.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    capsys.readouterr()
    assert run(["train", "--resume", str(out)]) == 1
    assert "damaged" in capsys.readouterr().err
