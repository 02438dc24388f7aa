"""A model file says what is needed to use its weights, is the same bytes every time, and is refused when damaged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.errors import ArchitectureError
from common.models.description import BaseNetwork
from common.version import version
from dac.model_file import KEY, Preparation, metadata, read_model

ARCHITECTURE = Architecture.with_kept(BaseNetwork("cnn", (1, 8, 8), 3), {"conv2": range(9)})
PREPARATION = Preparation((0.25,), (0.5,), ("cat", "dog", "owl"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(ARCHITECTURE.build(0).state_dict(), path, metadata("phone", "federated", ARCHITECTURE, PREPARATION))
    return path


def test_what_is_written_is_read(saved: Path) -> None:
    model = read_model(saved)
    assert (model.name, model.stage, model.version) == ("phone", "federated", version())
    assert (model.architecture, model.preparation) == (ARCHITECTURE, PREPARATION)
    expected = ARCHITECTURE.build(0).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state.items())


def test_anyone_can_read_it_with_safetensors_and_json_alone(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        facts = json.loads(file.metadata()[KEY])
    assert facts["image_size"] == [8, 8]
    assert (facts["mean"], facts["std"], facts["class_names"]) == ([0.25], [0.5], ["cat", "dog", "owl"])
    assert facts["architecture"]["base"]["model"] == "cnn"


def test_the_preparation_is_that_of_the_preprocessor() -> None:
    preprocessor = Preprocessor(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.0, 1.0]), "none")
    preparation = Preparation.of(preprocessor, ["a", "b"])
    assert torch.equal(torch.tensor(preparation.mean), preprocessor.mean)
    assert torch.equal(torch.tensor(preparation.std), preprocessor.std)
    assert preparation.class_names == ("a", "b")


def test_equal_models_are_equal_bytes_in_every_process(tmp_path: Path) -> None:
    program = (
        "import sys, torch\nfrom safetensors.torch import save_file\nfrom tests.dac import test_model_file as t\n"
        "save_file({'a': torch.zeros(1)}, sys.argv[1], t.metadata('m', 'search', t.ARCHITECTURE, t.PREPARATION))"
    )
    here, there = tmp_path / "here", tmp_path / "there"
    save_file({"a": torch.zeros(1)}, here, metadata("m", "search", ARCHITECTURE, PREPARATION))
    subprocess.run([sys.executable, "-c", program, str(there)], check=True, cwd=Path(__file__).parents[2])
    assert here.read_bytes() == there.read_bytes()


def test_a_preparation_may_be_unknown(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(ARCHITECTURE.build(0).state_dict(), path, metadata("m", "search", ARCHITECTURE, None))
    assert read_model(path).preparation is None


@pytest.mark.parametrize(
    "preparation", [Preparation((0.1, 0.2), (0.1, 0.2), ("a", "b", "c")), Preparation((0.1,), (0.2,), ("a", "b"))]
)
def test_a_preparation_for_other_images_or_classes_is_refused(preparation: Preparation) -> None:
    with pytest.raises(ArchitectureError, match="takes 1 channels and tells 3 classes"):
        metadata("m", "search", ARCHITECTURE, preparation)


def test_means_and_deviations_belong_together() -> None:
    with pytest.raises(ArchitectureError, match="means of 1 channels and deviations of 2"):
        Preparation((0.1,), (0.1, 0.2), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [None]}, "is damaged"),
        ({"mean": [float("nan")]}, "is damaged: .*NaN is not JSON"),
        ({"name": "\x1b[2J"}, "its name is no short text"),
        ({"stage": 7}, "its stage is no short text"),
        ({"version": "1" * 1000}, "its version is no short text"),
        ({"mean": [0.1, 0.2], "std": [1, 1]}, "means of 2"),
        ({"class_names": ["a"]}, "names of 1"),
        ({"architecture": {}}, "is damaged"),
        ({"architecture": Architecture.full(ARCHITECTURE.base).to_dict()}, "does not fit its architecture"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "model.safetensors"
    facts = json.loads(metadata("m", "search", ARCHITECTURE, PREPARATION)[KEY])
    save_file(ARCHITECTURE.build(0).state_dict(), path, {KEY: json.dumps({**facts, **change})})
    with pytest.raises(ArchitectureError, match=message):
        read_model(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    foreign, torn = tmp_path / "foreign.safetensors", tmp_path / "torn.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    torn.write_bytes(b"\xff" * 20)
    with pytest.raises(ArchitectureError, match="does not say what network"):
        read_model(foreign)
    with pytest.raises(ArchitectureError, match="cannot read the model file"):
        read_model(torn)
    with pytest.raises(ArchitectureError, match=r"nowhere\.safetensors"):
        read_model(tmp_path / "nowhere.safetensors")
