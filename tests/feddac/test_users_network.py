"""A network of thirty lines in a package of its own: searched, federated in both ways, and exported."""

import json
from pathlib import Path

import pytest

import feddac
from common.architecture import Architecture
from common.budget import DeviceBudget
from common.errors import ArchitectureError, ConfigurationError
from common.models import allow_network
from common.models.description import BaseNetwork
from dac.files import Member, load_architecture, save_member, weights_path
from dac.model_file import Preparation
from feddac.cli.main import run
from tests.feddac.cli.errors import assert_one_clear_line

PACKAGE = """
import torch
from torch import nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(channels, 8, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.widen = nn.Sequential(nn.Conv2d(8, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x):
        y = self.narrow(x)
        scale = self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        return x + self.widen(y * torch.sigmoid(scale))


class Network(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, padding=1)
        self.blocks = nn.ModuleList(Bottleneck(16) for _ in range(2))
        self.head = nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.classifier = nn.Linear(24, classes)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(F.relu(self.head(x)).mean((2, 3)))


def build(input_shape, classes):
    return Network(input_shape[0], classes)


def other(input_shape, classes):
    return Network(input_shape[0], classes)
"""
MODEL = "someones_package.networks:build"
DATA = ["--train-images", "200", "--test-images", "40", "--seed", "1"]
SEARCH = ["--search-space", "all", "--channel-multiple", "2", "--channel-floor", "2", "--warmup-epochs", "1"]
SHORT = ["--epochs-per-step", "1", "--fine-tune-epochs", "1"]


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site" / "someones_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "networks.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_it_is_searched_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "search"
    budgets = ["--max-macs", "150k,60k"]
    assert run(["search", "--model", MODEL, *DATA, *SEARCH, *SHORT, *budgets, "--out", str(out)]) == 0
    files = sorted((out / "architectures").glob("*.json"))
    assert [json.loads(file.read_text())["base"]["model"] for file in files] == [MODEL, MODEL]
    capsys.readouterr()
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert run(["export", str(files[-1]), "--model", MODEL]) == 0
    assert "equal to PyTorch within" in capsys.readouterr().out
    assert run(["describe", str(files[-1]), "--model", MODEL]) == 0


def kept(folder: Path, model: str) -> Path:
    """The file of a whole network with random weights."""
    allow_network(model)
    path, architecture = folder / "kept.json", Architecture.full(BaseNetwork(model, (1, 8, 8), 10))
    preparation = Preparation((0.3,), (0.4,), tuple("0123456789"))
    member = Member(architecture, DeviceBudget(), architecture.build(0).state_dict(), 0.5)
    save_member(path, member, name="kept", parent=None, seed=0, preparation=preparation)
    return path


@pytest.fixture
def nothing_allowed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names that this process may build from now on; what it looked up before is forgotten."""
    allowed: set[str] = set()
    monkeypatch.setattr("common.models.networks._allowed", allowed)
    return allowed


def test_python_loads_and_exports_a_file_of_it_that_names_it(tmp_path: Path, nothing_allowed: set[str]) -> None:
    file = kept(tmp_path, MODEL)
    nothing_allowed.clear()
    for call in (feddac.load, feddac.export):
        with pytest.raises(ArchitectureError, match="unknown base network 'someones_package"):
            call(file)
    assert feddac.load(file, model=MODEL).architecture.base.model == MODEL
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    nothing_allowed.clear()
    [exported] = feddac.export(file, model=MODEL)
    assert exported.float32.path.exists()


@pytest.mark.parametrize("of", ["mlp", "someones_package.networks:other"])
def test_a_file_of_another_network_than_the_one_named_is_refused(
    of: str, tmp_path: Path, nothing_allowed: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = kept(tmp_path, of)
    architecture = load_architecture(file)
    message = f"which network it is of, {of}: leave out"
    command = ["train", str(file), "--model", MODEL, *DATA, "--epochs", "0", "--out", str(tmp_path / "run")]
    for start in ("--inherit", "--from-scratch"):
        assert run([*command, start]) == 2
        assert_one_clear_line(capsys.readouterr().err, f"{file} says {message} --model")
    for one in (architecture, file, weights_path(file)):
        with pytest.raises(ConfigurationError, match=f"{message} model"):
            feddac.train(one, model=MODEL, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    mine = kept(tmp_path, MODEL)
    assert run(["train", str(mine), *command[2:]]) == 0


@pytest.mark.parametrize("aggregation", ["cohort", "overlap"])
def test_it_is_federated(tmp_path: Path, aggregation: str) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[device]]\nname = "large"\ncount = 2\nmacs = "150k"\n[[device]]\nname = "small"\nmacs = "60k"\n')
    out = tmp_path / "run"
    command = ["simulate", "--engine", "inline", "--model", MODEL, "--fleet", str(fleet), "--rounds", "1"]
    assert run([*command, *DATA, *SEARCH, *SHORT, "--aggregation", aggregation, "--out", str(out)]) == 0
    costs = [json.loads(file.read_text())["costs"]["macs"] for file in sorted((out / "architectures").glob("*.json"))]
    assert len(costs) == 2
    assert min(costs) < 60_000 <= max(costs) < 150_000
    assert len(list((out / "models").glob("*.safetensors"))) == 2
