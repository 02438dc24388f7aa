"""Every command of the README, of two pages of docs/ and of every `--help` runs as it is printed.

In this process, with the sizes of settings held down and devices in it (no Ray); data that would be downloaded is made.
Left out are comparisons that FedDAC ships, which are many runs (tests/feddac/comparison), and what needs a SuperLink
(tests/feddac/deployment, tests/e2e/test_flwr_run.py).
"""

import inspect
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.architecture import Architecture
from common.data.images import DataSet, Images
from common.models.description import BaseNetwork
from common.settings import Settings
from dac.published import write_published
from feddac.cli.main import run
from tests.e2e.conftest import ROOT
from tests.forked import start_run

LARGEST = {
    **{"rounds": 1, "epochs": 1, "warmup_epochs": 1, "epochs_per_step": 0, "fine_tune_epochs": 1, "joint_epochs": 1},
    **{"pretraining_epochs": 1, "train_images": 120, "test_images": 60, "width": 0.25},
}
"""No setting is larger in these tests, whatever a command says; 0 images are all images."""

SETTINGS_FILE = 'rounds = 2\npartition = "classes:2"\n'
BUDGETS_FILE = '[[budget]]\nname = "phone"\nmacs = "6M"\n[[budget]]\nmemory = "120KB"\n'
ELSEWHERE = ("compare methods", "compare figure")


def commands_of(text: str) -> list[str]:
    """The lines of shell blocks that begin with feddac; a line that ends in a backslash goes on in the next."""
    blocks = re.findall(r"```sh\n(.*?)```", text.replace("\\\n", " "), flags=re.DOTALL)
    lines = [line.rpartition(" && ")[2] for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("feddac ")]


def examples_of(module: str) -> list[str]:
    """The commands below the help of the commands in this module."""
    found = import_module(f"feddac.cli.commands.{module}")
    texts = [value for name, value in vars(found).items() if name.endswith("EXAMPLES")]
    return [line.strip() for text in texts for line in text.splitlines() if line.strip().startswith("feddac ")]


README = (ROOT / "README.md").read_text()
THREATS = (ROOT / "docs" / "threat-model.md").read_text()
# In this order: some continue what others began.
HELP = [
    command
    for module in ("simulate", "search", "train", "compare", "describe", "device", "listings")
    for command in examples_of(module)
    if not any(part in command for part in ELSEWHERE)
]


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Sizes held down, devices in this process, and data sets in place of downloads."""
    with pytest.MonkeyPatch.context() as patch:
        whole = Settings.__post_init__

        def held_down(settings: Settings) -> None:
            whole(settings)
            for name, most in LARGEST.items():
                value = getattr(settings, name, 0)
                if value > most or (value == 0 and name.endswith("_images") and hasattr(settings, name)):
                    object.__setattr__(settings, name, most)

        patch.setattr(Settings, "__post_init__", held_down)
        simulate = import_module("feddac.cli.commands.simulate").simulate
        defaults = list(inspect.signature(simulate).parameters)
        assert defaults[1] == "engine"
        patch.setattr(simulate, "__defaults__", ("inline", *simulate.__defaults__[1:]))
        patch.setattr("common.data.download.load_download", made)
        patch.setattr("feddac.comparison.execute._start", start_run)
        yield


def made(name: str, data_folder: Path) -> DataSet:
    """Noise with the shape and the classes of a data set."""
    shape = (3, 32, 32) if name.startswith("cifar") else (1, 28, 28)
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        return Images(pixels, torch.arange(count) % 10)

    return DataSet(name, images(400), images(100), tuple(map(str, range(10))))


def workplace_of(home: Path, experiment: str) -> Path:
    """A folder with the files that commands name; `experiment` is the content of experiment.toml."""
    for name, content in re.findall(r"```toml\n# (\w+\.toml)\n(.*?)```", README, re.DOTALL):
        (home / name).write_text(content)
    if experiment:
        (home / "experiment.toml").write_text(experiment)
    (home / "devices.toml").write_text(BUDGETS_FILE)
    base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, 0.25)
    kept = {group.name: range(8) for group in Architecture.full(base).description.prunable}
    write_published(home / "net_cfg.json", {"10": Architecture.with_kept(base, kept)})
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 4)):
        for name in ("cats", "dogs", "owls"):
            folder = home / "my-images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                side = 12 + number % 10  # ten sizes
                pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((12, 12)).save(folder / f"{number}.png")
    return home


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workplace_of(tmp_path_factory.mktemp("readme"), "")


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workplace_of(tmp_path_factory.mktemp("help"), SETTINGS_FILE)


def assert_runs(command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    code = run(shlex.split(command)[1:])
    shown = capfd.readouterr()
    assert code == 0, shown.err
    assert shown.out


def test_the_commands_are_found() -> None:
    assert len(commands_of(README)) >= 15
    assert len(HELP) >= 15


@pytest.mark.parametrize("command", [*commands_of(README), *commands_of(THREATS)])
def test_readme_command(
    command: str, reader: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if command.startswith("feddac export"):
        pytest.importorskip("onnxruntime")
    assert_runs(command, reader, monkeypatch, capfd)


@pytest.mark.slow  # twenty commands, none of which the README's do not resemble
@pytest.mark.parametrize("command", HELP)
def test_help_example(
    command: str, helped: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "compare experiment" in command:
        example = README.partition("# experiment.toml\n")[2].partition("```")[0]
        (helped / "experiment.toml").write_text(example)
    assert_runs(command, helped, monkeypatch, capfd)
