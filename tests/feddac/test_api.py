"""`import feddac`: quick to import, honest about names, and one error for a mistake."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import feddac
from common.budget import DeviceBudget
from common.errors import BudgetError, CheckpointError, ConfigurationError
from common.models.description import BaseNetwork
from common.version import version
from dac.model_file import read_model

ANY = DeviceBudget(params=6000)
ROOT = Path(__file__).resolve().parents[2]


def python(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    done = python("import feddac, sys; print({'torch', 'flwr', 'ray', 'numpy'} & set(sys.modules))", tmp_path)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_every_name_is_there_and_documented() -> None:
    for name in feddac.__all__:
        assert name == "__version__" or getattr(feddac, name).__doc__
    assert feddac.__version__ == version()
    assert set(dir(feddac)) == set(feddac.__all__)
    with pytest.raises(AttributeError, match="feddac has no 'serch'; it has Architecture"):
        feddac.serch  # noqa: B018


def test_a_package_that_hides_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    (tmp_path / "client/__init__.py").write_text("")
    done = python("import feddac; feddac.load", tmp_path)
    assert "ImportError: FedDAC's package 'client' is hidden by" in done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> feddac.Run:
    out = tmp_path_factory.mktemp("api") / "run"
    return feddac.train(model="mlp", epochs=2, accelerator="cpu", out=out)


def test_a_trained_run_says_what_it_achieved_and_gives_its_model(trained: feddac.Run) -> None:
    assert trained.finished
    assert trained.settings["epochs"] == 2
    assert [event["epoch"] for event in trained.events] == [1, 2]
    assert trained.test_accuracy == trained.summary["test_accuracy"]
    model = trained.load()
    assert model.class_names == tuple("0123456789")
    assert model(torch.zeros(3, 1, 30, 20, dtype=torch.uint8)).shape == (3, 10)


def test_training_goes_on_from_a_model_file_and_starts_anew_from_an_architecture(
    trained: feddac.Run, tmp_path: Path
) -> None:
    (model,) = trained.models
    ours = read_model(model.path).state["classifier.weight"]
    same = feddac.train(model.path, epochs=0, accelerator="cpu", out=tmp_path / "same")
    assert torch.equal(same.load().network.state_dict()["classifier.weight"], ours)
    fresh = feddac.train(trained.architectures["trained"], epochs=0, accelerator="cpu", out=tmp_path / "fresh")
    assert fresh.architectures == trained.architectures
    assert not torch.equal(fresh.load().network.state_dict()["classifier.weight"], ours)


def test_a_comparison_with_no_number_of_jobs_has_one_per_cpu_and_says_which_run_failed(tmp_path: Path) -> None:
    experiment = tmp_path / "experiment.toml"
    experiment.write_text('title = "T"\nseeds = [0]\n[settings]\nmax-macs = "1"\n[methods.plain]\nmethod = "fedavg"\n')
    comparison = feddac.compare(experiment, out=tmp_path / "compared", jobs=0)
    [reason] = comparison.failures.values()
    assert reason.startswith("no slice fits a budget below 1 MACs")


def test_bounds_that_would_work_are_no_keywords_and_are_not_offered_as_such(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="no architecture fits") as refused:
        feddac.search([feddac.DeviceBudget(macs=1, training_memory_bytes=1)], model="mlp", out=tmp_path / "a")
    assert set(refused.value.remedy) == {"max-macs", "max-training-memory"}
    assert "this works" not in str(refused.value)


def test_settings_are_the_flags_and_mistakes_are_one_error(tmp_path: Path) -> None:
    colour = feddac.Architecture.full(BaseNetwork("mlp", (3, 32, 32), 10))
    for call, message in (
        (lambda: feddac.train(epoch=3, out=tmp_path / "a"), "did you mean"),
        (lambda: feddac.search(out=tmp_path / "a"), "give the budgets"),
        (lambda: feddac.search([], out=tmp_path / "a"), "give at least one budget"),
        (lambda: feddac.search({"Phone": feddac.DeviceBudget()}, out=tmp_path / "a"), "0 to 9 and -, not 'Phone'"),
        (lambda: feddac.search([feddac.DeviceBudget(macs=1)], model="mlp", out=tmp_path / "a"), "no architecture fits"),
        (lambda: feddac.train(model="mlp", distillation=0.5, out=tmp_path / "a"), "no effect without --teacher"),
        (lambda: feddac.train(colour, out=tmp_path / "a"), "the architecture is for images of 3x32x32"),
        (lambda: feddac.simulate(engine="cloud", out=tmp_path / "a"), "must be one of ray, inline"),
        (lambda: feddac.simulate(engine="batched", workers=2, out=tmp_path / "a"), "--workers is for the ray engine"),
        (lambda: feddac.compare("peers", out=tmp_path / "a", jobs=-1), "jobs must be at least 0, not -1"),
        (lambda: feddac.read_run(tmp_path), "there is no run in"),
        (lambda: feddac.load(tmp_path, "phone"), "there is no run in"),
    ):
        with pytest.raises(feddac.FedDACError, match=message):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_continued_with_the_settings_it_was_begun_with(trained: feddac.Run) -> None:
    with pytest.raises(CheckpointError, match=r"model = 'mlp', not 'cnn': resume it with its own settings"):
        feddac.train(resume=trained.folder, model="cnn")


def test_what_would_have_no_effect_is_refused_by_name(trained: feddac.Run, tmp_path: Path) -> None:
    file = trained.folder / "architectures/trained.json"
    mistakes: list[tuple[Callable[[], object], str]] = [
        (lambda: feddac.train(file, width=0.5, out=tmp_path / "a"), "which network it is of: leave out width"),
        (lambda: feddac.train(resume=trained.folder, architecture=file), "leave out architecture"),
        (lambda: feddac.train(resume=trained.folder, teacher=file), "leave out teacher"),
        (lambda: feddac.train(resume=trained.folder, out=tmp_path / "a"), "leave out out"),
        (lambda: feddac.search(resume=trained.folder, out=tmp_path / "a"), "leave out out"),
        (lambda: feddac.train(partition="dirichlet:0.3", out=tmp_path / "a"), "partition has no effect"),
        (lambda: feddac.search(ANY, reference_fraction=0.2, out=tmp_path / "a"), "reference_fraction has no effect"),
    ]
    for wrong, message in mistakes:
        with pytest.raises(ConfigurationError, match=message):
            wrong()
    assert not (tmp_path / "a").exists()
