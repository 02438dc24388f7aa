"""`feddac search`: budgets in, architecture files out; continues where it was stopped; mistakes are one line."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import tomli_w
import torch

from common.budget import DeviceBudget, LocalTraining
from common.config import Config
from common.errors import ArchitectureError
from common.fleet import PROFILES
from common.rates import LatencyBound
from dac.files import load_member
from dac.published import read_published, write_published
from feddac.cli.main import run
from server.run_folder import RunFolder
from tests.feddac.cli.errors import assert_one_clear_line

SHORT = ["--warmup-epochs", "1", "--epochs-per-step", "1", "--fine-tune-epochs", "0", "--search-batch-size", "128"]
CNN = ["search", "--model", "cnn", *SHORT]
SLIM = ["search", "--width", "0.25", "--stem-stride", "2", *SHORT]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search for two budgets."""
    folder = tmp_path_factory.mktemp("search") / "run"
    assert run([*CNN, "--max-params", "20k,15k", "--max-macs", "100k", "--out", str(folder), "--seed", "3"]) == 0
    return folder


def test_every_budget_gets_an_architecture_below_it(found: Path) -> None:
    for number, params in ((1, 20_000), (2, 15_000)):
        member = load_member(found / "architectures" / f"budget-{number}.json")
        assert member.budget == DeviceBudget(macs=100_000, params=params)
        assert member.budget.admits(member.architecture.costs)


def test_the_folder_says_what_was_asked_and_what_happened(found: Path) -> None:
    folder = RunFolder.open(found)
    config = folder.read_config()
    assert (config["model"], config["seed"], config["warmup-epochs"]) == ("cnn", 3, 1)
    assert not {"partition", "reference-fraction", "rounds"} & set(config)
    assert [entry.name for entry in folder.read_budgets()] == ["budget-1", "budget-2"]
    epochs = [event["epoch"] for event in folder.events("search")]
    assert epochs == list(range(1, len(epochs) + 1))
    assert json.loads((found / "architectures" / "budget-2.json").read_text())["parent"] == "budget-1"


def test_a_finished_search_is_resumed_without_work(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = RunFolder.open(found).events()
    weights = load_member(found / "architectures" / "budget-1.json").state
    assert run(["search", "--resume", str(found)]) == 0
    assert RunFolder.open(found).events() == before
    again = load_member(found / "architectures" / "budget-1.json").state
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    output = capsys.readouterr().out
    assert "budget-2" in output
    assert "validation" in output


def test_what_the_published_format_cannot_say_is_not_written_in_it(tmp_path: Path) -> None:
    assert run([*SLIM, "--max-macs", "150k", "--step-share", "0.9", "--out", str(tmp_path / "run")]) == 0
    found = load_member(tmp_path / "run" / "architectures" / "budget-1.json").architecture
    assert found.removed or found.sizes["head"] < found.description.full_sizes["head"]
    assert not (tmp_path / "run" / "net_cfg.json").exists()
    with pytest.raises(ArchitectureError, match="cannot say what x is"):
        write_published(tmp_path / "net_cfg.json", {"x": found})


def test_mobilenet_families_are_also_written_in_the_published_format(tmp_path: Path) -> None:
    budgets = tmp_path / "budgets.toml"
    budgets.write_text('[[budget]]\nname = "small"\nmacs = "150k"\n[[budget]]\nname = "large"\nmacs = "170k"\n')
    command = [*SLIM, "--search-space", "inner", "--step-share", "0.9", "--budgets", str(budgets)]
    assert run([*command, "--out", str(tmp_path / "run")]) == 0
    member = load_member(tmp_path / "run" / "architectures" / "small.json")
    entries = read_published(tmp_path / "run" / "net_cfg.json", member.architecture.base)
    assert list(entries) == ["large", "small"]
    assert entries["small"].architecture.sizes == member.architecture.sizes


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give at least one budget"),
        (["--max-macs", "many"], 1, "--max-macs must be a positive number"),
        (["--max-macs", "3M,2M", "--max-params", "1M,2M,3M"], 2, "--max-macs has 2 bounds"),
        (["--max-macs", "1k"], 1, "the smallest mobilenet_v2 for (1, 8, 8) needs"),
        (["--max-macs", "3M", "--budgets", "x.toml"], 2, "not both"),
        (["--budgets", "x.toml"], 2, "cannot be read"),
        (["--max-macs", "3M", "--data", "cifar"], 1, "did you mean cifar10"),
        (["--max-macs", "3M", "--preset", "fast"], 2, "preset must be one of default, recommended, paper"),
        (["--max-macs", "3M", "--width", "0"], 2, "width must be above 0"),
        (["--resume", "/proc"], 1, "there is no run in /proc"),
        (["--resume", "/proc", "--max-macs", "3M"], 2, "leave out budgets"),
        (["--resume", "/proc", "--profile", "phone"], 2, "--profile"),
        (["--resume", "/proc", "--local-batch-size", "4"], 2, "--local-batch-size"),
        (["--max-macs", "3M", "--profile", "phone"], 2, "profile = 'phone' would have no effect without --max-l"),
        (["--max-macs", "3M", "--local-batch-size", "4"], 2, "local-batch-size = 4 would have no effect without"),
        (["--max-macs", "3M", "--recipe", "uniform", "--search-space", "inner"], 2, "leave --search-space out"),
        (["--max-macs", "3M", "--recipe", "uniform", "--channel-floor", "4"], 2, "leave --channel-floor out"),
        (["--max-macs", "3M", "--model", "cnn", "--stem-stride", "2"], 2, "no effect without --model mobilenet_v2"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["search", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert_one_clear_line(output.err, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "bounds",
    [
        ["--max-macs", "1k", "--max-training-memory", "1k"],
        ["--max-latency-ms", "0.0001", "--profile", "microcontroller"],
        ["--max-macs", "1k,100k", "--max-params", "20k"],
    ],
)
def test_the_command_that_is_said_to_work_works(
    bounds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*CNN, *bounds, "--out", str(tmp_path / "run")]) == 1
    shown = capsys.readouterr().err
    assert_one_clear_line(shown, "no architecture fits")
    command = shown.strip().partition("; this works: feddac ")[2]
    assert run(shlex.split(command)) == 0


def test_a_bound_that_is_met_is_offered_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*CNN, "--max-macs", "1k,123456", "--max-params", "20k", "--out", str(tmp_path / "run")]) == 1
    command = capsys.readouterr().err.strip().partition("; this works: feddac ")[2]
    macs = command.partition("--max-macs ")[2]
    assert macs.endswith(",123456")
    assert command.count("--max-params 20k") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "4"], "seed = 3, not 4"),
        (["--augment", "crop"], "augment = 'auto', not 'crop'"),
        (["--train-images", "1400"], "train-images = 0, not 1400"),
        (["--test-images", "100"], "test-images = 0, not 100"),
        (["--model", "mlp"], "model = 'cnn', not 'mlp'"),
        (["--search-momentum", "0.5"], "search-momentum = 0.9, not 0.5"),
    ],
)
def test_other_settings_cannot_continue_a_search(
    change: list[str], message: str, found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in found.rglob("*")}
    assert run(["search", "--resume", str(found), *change]) == 1
    assert_one_clear_line(capsys.readouterr().err, message)
    assert {path: path.stat().st_mtime_ns for path in found.rglob("*")} == before


def test_what_may_change_is_written_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run([*CNN, "--max-params", "20k", "--search-learning-rate", "1e30", "--out", str(out)]) == 1
    assert_one_clear_line(capsys.readouterr().err, "the search diverged in epoch 1")
    again = ["search", "--resume", str(out)]
    assert run([*again, "--width", "0.5", "--search-learning-rate", "0.02"]) == 1
    assert_one_clear_line(capsys.readouterr().err, "width = 1.0, not 0.5")
    assert run([*again, "--search-learning-rate", "0.02"]) == 0
    assert RunFolder.open(out).read_config()["search-learning-rate"] == 0.02
    assert run(again) == 0


def test_strides_that_were_chosen_are_those_of_auto(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(["search", "--width", "0.25", *SHORT, "--max-macs", "300k", "--out", str(out)]) == 0
    before = RunFolder.open(out).read_config()
    assert run(["search", "--resume", str(out), "--strides", "auto", "--stem-stride", "0"]) == 0
    assert RunFolder.open(out).read_config() == before


def test_a_file_of_budgets_has_profiles_of_its_own_and_may_leave_nothing_for_a_batch_size_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = tmp_path / "budgets.toml"
    budgets.write_text("[[budget]]\nmacs = 100000\n")
    for flags, key in ((["--profile", "phone"], "profile"), (["--local-batch-size", "4"], "local-batch-size")):
        assert run([*CNN, "--budgets", str(budgets), *flags, "--out", str(tmp_path / "run")]) == 2
        assert_one_clear_line(capsys.readouterr().err, f"{key} = ")
    assert not (tmp_path / "run").exists()
    budgets.write_text('[[budget]]\ntraining-memory = "1MB"\n')
    assert run([*CNN, "--budgets", str(budgets), "--local-batch-size", "4", "--out", str(tmp_path / "run")]) == 0
    [entry] = RunFolder.open(tmp_path / "run").read_budgets()
    assert entry.budget.training.batch_size == 4


def test_settings_of_a_federated_run_may_be_in_the_file(tmp_path: Path) -> None:
    config = tmp_path / "all.toml"
    config.write_text('method = "fedavg"\nrounds = 3\nmodel = "cnn"\nsearch-space = "inner"\nfleet = "phone"\n')
    command = [*CNN, "--config", str(config), "--max-params", "20k", "--out", str(tmp_path / "run")]
    assert run(command) == 0
    assert RunFolder.open(tmp_path / "run").read_config()["search-space"] == "inner"


def bounds_of(folder: Path) -> list[DeviceBudget]:
    return [entry.budget for entry in RunFolder.open(folder).read_budgets()]


def test_bounds_in_the_file_are_the_defaults_of_their_flags(tmp_path: Path) -> None:
    config, out = tmp_path / "all.toml", tmp_path / "run"
    config.write_text('max-macs = "100k"\nmax-params = "20k,15k"\nmax-training-memory = "2MB"\nlocal-batch-size = 4\n')
    assert run([*CNN, "--config", str(config), "--max-params", "18k", "--out", str(out)]) == 0
    training = LocalTraining(4)
    expected = DeviceBudget(macs=100_000, params=18_000, training_memory_bytes=2_000_000, training=training)
    assert bounds_of(out) == [expected]


def test_a_list_of_bounds_and_a_latency_may_be_in_the_file(tmp_path: Path) -> None:
    config, out = tmp_path / "all.toml", tmp_path / "run"
    config.write_text('max-memory = "20KB,18KB"\nmax-latency-ms = 5\n')
    assert run([*CNN, "--config", str(config), "--profile", "microcontroller", "--out", str(out)]) == 0
    latency = LatencyBound.by(PROFILES["microcontroller"].rates, 5.0)
    assert bounds_of(out) == [DeviceBudget(peak_memory_bytes=size, latency=latency) for size in (20_000, 18_000)]


def test_a_file_of_budgets_wins_over_bounds_in_the_file_of_settings(tmp_path: Path) -> None:
    config, budgets, out = tmp_path / "all.toml", tmp_path / "budgets.toml", tmp_path / "run"
    config.write_text('max-macs = "100k"\nlocal-batch-size = 4\n')
    budgets.write_text('[[budget]]\ntraining-memory = "1MB"\n')
    assert run([*CNN, "--config", str(config), "--budgets", str(budgets), "--out", str(out)]) == 0
    assert bounds_of(out) == [DeviceBudget(training_memory_bytes=1_000_000, training=LocalTraining(4))]


def test_the_settings_of_a_whole_federated_run_bound_a_search(tmp_path: Path) -> None:
    config, out = tmp_path / "config.toml", tmp_path / "run"
    whole = Config.from_mapping({"max-macs": "100k", "model": "cnn", "out": str(out)})
    config.write_text(tomli_w.dumps(whole.to_mapping()))  # which has a latency too, by the profiles of its devices
    assert run([*CNN, "--config", str(config)]) == 0
    assert bounds_of(out) == [DeviceBudget(macs=100_000)]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('max-macs = "many"\n', 1, "max-macs must be a positive number"),
        ("max-latency-ms = 5\n", 2, "--max-latency-ms needs --profile"),
        ('max-macs = ""\n', 2, "give at least one budget"),
        ("local-batch-size = 1\n", 2, "local-batch-size must be at least 2"),
    ],
)
def test_bounds_of_a_file_that_cannot_be_are_one_line(
    text: str, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "all.toml"
    config.write_text(text)
    assert run([*CNN, "--config", str(config), "--out", str(tmp_path / "run")]) == code
    assert_one_clear_line(capsys.readouterr().err, message)
    assert not (tmp_path / "run").exists()


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", "--help"]) == 0
    output = capsys.readouterr().out
    assert "feddac search --resume" in output
    assert "--partition" not in output


@pytest.mark.parametrize("names", [["a" * 65], ["../x"], ["\x1b[2J"], ["same", "same"]])
def test_names_of_budgets_are_checked_before_a_search_goes_on(
    names: list[str], found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(found, copy)
    entries = json.loads((copy / "budgets.json").read_text())
    entries = [{**entries[0], "name": name} for name in names]
    (copy / "budgets.json").write_text(json.dumps(entries))
    capsys.readouterr()
    assert run(["search", "--resume", str(copy)]) == 1
    [line] = [one for one in capsys.readouterr().err.splitlines() if one.startswith("Error")]
    assert "budgets.json is damaged: no budget can be called" in line
    assert line.isprintable()
