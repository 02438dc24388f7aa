"""`feddac export`: files that take raw images and score what the run says, with the facts beside them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import feddac
from common.architecture import Architecture
from common.budget import DeviceBudget
from common.data.function import ALLOWED
from common.data.sources import load
from common.errors import ConfigurationError
from common.groups import DataSettings
from common.models.description import BaseNetwork
from dac.export import read_metadata
from dac.files import Member, save_member
from dac.model_file import Preparation, read_model
from feddac.cli.main import run
from tests.examples import slow
from tests.feddac.cli.errors import assert_one_clear_line

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

TINY = ["--model", "mlp", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federated run whose rounds change the weights."""
    folder = tmp_path_factory.mktemp("export") / "run"
    quick = ["--warmup-epochs", "2", "--epochs-per-step", "0", "--fine-tune-epochs", "1", "--rounds", "2"]
    where = ["--engine", "inline", "--out", str(folder)]
    bounds = ["--devices", "4", "--fleet", str(_fleet(folder.parent))]
    assert run(["simulate", *TINY, *quick, *bounds, *where]) == 0
    return folder


def _fleet(folder: Path) -> Path:
    path = folder / "fleet.toml"
    tables = [
        f'[[device]]\nname = "{name}"\ncount = 2\nparams = "{n}"\n' for name, n in (("big", "12k"), ("low", "6k"))
    ]
    path.write_text("".join(tables))
    return path


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def score(path: Path) -> float:
    """Accuracy on raw test digits with onnxruntime alone."""
    test = load(DataSettings()).test
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": test.images.numpy()})
    return float(np.mean(logits.argmax(1) == test.labels.numpy()))


def test_every_model_of_a_run_scores_what_the_run_says(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(copied), "all"]) == 0
    output = capsys.readouterr().out
    cohorts = json.loads((copied / "summary.json").read_text())["cohorts"]
    assert len(cohorts) == 2
    for cohort in cohorts:
        name = cohort["cohort"]
        path, small = copied / f"export/{name}.onnx", copied / f"export/{name}.int8.onnx"
        assert abs(score(path) - cohort["test_accuracy"]) * 359 <= 1
        assert score(small) >= cohort["test_accuracy"] - 0.03
        assert read_metadata(path)["stage"] == "federated"
        facts = json.loads((copied / f"export/{name}.json").read_text())
        assert facts["reported_accuracy"] == cohort["test_accuracy"]
        assert [one["path"] for one in facts["files"]] == [path.name, small.name]
        assert [one["accuracy"] for one in facts["files"]] == [score(path), score(small)]
        assert all(one["latency_ms"] > 0 and one["bytes"] > 0 for one in facts["files"])
        assert f"{path.name} " in output
        assert f"{100 * score(small):.1f} %" in output
    assert "equal to PyTorch within" in output


def test_federated_and_earlier_weights_differ_and_say_so(copied: Path) -> None:
    before = read_model(copied / "architectures/cohort-0.before-federation.safetensors")
    after = read_model(copied / "models/cohort-0.safetensors")
    assert (before.stage, after.stage) == ("before-federation", "federated")
    assert before.preparation == after.preparation is not None
    assert any((tensor != before.state[name]).any() for name, tensor in after.state.items())


@pytest.mark.parametrize(
    ("choice", "file"),
    [
        (["low"], "low.onnx"),
        (["--device", "low-01"], "low-01.onnx"),
        *slow((["low-00"], "low-00.onnx"), (["cohort-1"], "cohort-1.onnx")),
    ],
)
def test_one_model_is_named_as_it_was_asked_for(choice: list[str], file: str, copied: Path, tmp_path: Path) -> None:
    devices = {one["name"]: one["cohort"] for one in json.loads((copied / "budgets.json").read_text())}
    assert devices["low-00"] == devices["low-01"] == "cohort-1"
    out = tmp_path / "models"
    assert run(["export", str(copied), *choice, "--out", str(out)]) == 0
    stem = file.removesuffix(".onnx")
    assert {path.name for path in out.iterdir()} == {file, f"{stem}.int8.onnx", f"{stem}.json"}
    assert read_metadata(out / file)["name"] == "cohort-1"


def test_a_trained_folder_scores_its_own_test_accuracy(tmp_path: Path) -> None:
    out = tmp_path / "train"
    assert run(["train", *TINY, "--epochs", "3", "--out", str(out)]) == 0
    assert run(["export", str(out)]) == 0
    reported = json.loads((out / "summary.json").read_text())["test_accuracy"]
    assert abs(score(out / "export/trained.onnx") - reported) * 359 <= 1


def test_a_result_that_cannot_be_repeated_is_an_error(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / "summary.json"
    path.write_text(re.sub(r'"test_accuracy": [0-9.]+', '"test_accuracy": 0.05', path.read_text()))
    assert run(["export", str(copied), "cohort-0"]) == 1
    assert_one_clear_line(capsys.readouterr().err, "cohort-0.onnx classifies")
    assert list((copied / "export").iterdir()) == []


def test_files_take_the_place_of_earlier_ones_when_all_checks_have_passed(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["export", str(copied), "cohort-0"]) == 0
    names = {"cohort-0.onnx", "cohort-0.int8.onnx", "cohort-0.json"}
    before = {path.name: path.read_bytes() for path in (copied / "export").iterdir()}
    assert before.keys() == names
    capsys.readouterr()
    monkeypatch.setattr("dac.export.TOLERANCE", -1.0)  # nothing is equal enough
    assert run(["export", str(copied), "cohort-0"]) == 1
    assert_one_clear_line(capsys.readouterr().err, "Error: cohort-0.onnx differs from PyTorch")
    assert {path.name: path.read_bytes() for path in (copied / "export").iterdir()} == before


def test_without_its_images_a_run_is_exported_untested(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied / "config.toml"
    path.write_text(path.read_text().replace('data = "digits"', 'data = "/nowhere/images"'))
    assert run(["export", str(copied), "cohort-1"]) == 0
    assert "not tested, and no int8 version: there is no data set" in capsys.readouterr().out
    assert not (copied / "export/cohort-1.int8.onnx").exists()
    facts = json.loads((copied / "export/cohort-1.json").read_text())
    assert facts["files"][0]["accuracy"] is None


FUNCTION = """
from common.data.sources import load
from common.groups import DataSettings


def halves():
    data = load(DataSettings())
    return tuple([(image.numpy(), int(label)) for image, label in zip(part.images, part.labels)]
                 for part in (data.train, data.test))
"""


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The digits as a function, which nobody has allowed yet."""
    (tmp_path / "ones_images.py").write_text(FUNCTION)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(ALLOWED, "")
    return "ones_images:halves"


def test_images_that_a_function_returns_are_those_of_the_run_and_of_whoever_names_it(
    function: str, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "train"
    assert run(["train", *TINY, "--data", function, "--epochs", "1", "--out", str(out)]) == 0
    reported = json.loads((out / "summary.json").read_text())["test_accuracy"]
    named = ["--data", function]
    for place, name, flags in ((out, "trained", []), (out, "trained", named), (file, "member", named)):
        monkeypatch.setenv(ALLOWED, "")
        assert run(["export", str(place), *flags]) == 0
        folder = (place if place.is_dir() else place.parent) / "export"
        assert (folder / f"{name}.int8.onnx").exists()
        accuracy = json.loads((folder / f"{name}.json").read_text())["files"][0]["accuracy"]
        assert place == file or abs(accuracy - reported) * 359 <= 1
        shutil.rmtree(folder)


def test_settings_of_the_data_are_written_as_keywords_and_must_be_known(copied: Path) -> None:
    for data in ({"image_size": 4}, {"image-size": 4}):
        [one] = feddac.export(copied, "cohort-0", data=data)
        assert one.float32.accuracy is not None
        assert one.float32.accuracy != one.model.reported_accuracy  # images of four pixels tell less
    [one] = feddac.export(copied, "cohort-0", data={"test_images": 100})
    assert one.float32.test_images == 100
    [one] = feddac.export(copied, "cohort-0", data={"data_folder": str(copied / "cache")})
    assert one.float32.accuracy == pytest.approx(one.model.reported_accuracy, abs=1.5 / 359)
    with pytest.raises(ConfigurationError, match="unknown setting 'dta': did you mean 'data'"):
        feddac.export(copied, data={"dta": "cifar10"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "member.json"
    architecture = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 10))
    member = Member(architecture, DeviceBudget(), architecture.build(0).state_dict(), 0.5)
    preparation = Preparation((0.3,), (0.4,), tuple("0123456789"))
    save_member(path, member, name="m", parent=None, seed=0, preparation=preparation)
    return path


def test_a_file_alone_is_tested_on_the_data_that_is_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", str(file)]) == 0
    assert "name images with --data" in capsys.readouterr().out
    assert run(["export", str(file), "--data", "digits"]) == 0
    assert (file.parent / "export/member.int8.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{run}", "nobody"], 2, "there is no cohort, device or profile called 'nobody'"),
        (["{run}", "all", "--device", "low-00"], 2, "name one of a cohort, a device and a profile"),
        (["{run}", "--data", "nonsense"], 1, "there is no data set"),
        (["/nowhere"], 1, "there is no run in /nowhere"),
        ([], 2, "Missing argument"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], code: int, message: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", *(str(copied) if one == "{run}" else one for one in arguments)]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
