"""Every `feddac` command of the README, of docs/ and of every `--help` runs as it is printed.

In this process, with the sizes of settings held down and devices in it (no Ray); data that would be downloaded is made.
One of each kind in the README runs always; its others, those of the other pages and of `--help` are slow.

Left out, and why:

- the comparisons that FedDAC ships (`feddac compare methods`, `peers`, `skewed`, `figure4`, `figure4-growing`,
  `figure5`, `autoflip-published`) and their tuning are dozens of runs, hours even when held down;
  tests/feddac/comparison and tests/feddac/tuning run smaller ones;
- `feddac up`, `submit`, `supernode`, `register` and `unregister`, and `flwr` and `flower-...`, need a SuperLink and
  processes of their own: tests/feddac/deployment (which also checks the flags of every such command in
  docs/deployment.md) and tests/e2e/test_flwr_run.py;
- `python benchmarks/*.py` are measurements of minutes to hours;
- docs/add-a-method.md and docs/api.md are followed by tests of their own (test_add_a_method.py, test_api_page.py);
- `pip install`, and what has a word in capitals or `package.module:function` where a name of the reader's goes.
"""

import inspect
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.architecture import Architecture
from common.data.images import DataSet, Images
from common.models.darts_space import PUBLISHED
from common.models.description import BaseNetwork
from common.settings import Settings
from dac.published import write_published
from feddac.cli.main import run
from tests.e2e.conftest import ROOT
from tests.examples import slow
from tests.forked import start_run

LARGEST = {
    **{"rounds": 2, "epochs": 1, "warmup_epochs": 1, "epochs_per_step": 0, "fine_tune_epochs": 1, "joint_epochs": 1},
    **{"pretraining_epochs": 1, "train_images": 120, "test_images": 60, "width": 0.25},
    **{"fednas_search_rounds": 1, "fednas_search_epochs": 1, "fednas_channels": 4, "fednas_cells": 3},
    **{"autoflip_exploration_epochs": 1},
}
"""No setting is larger in these tests, whatever a command says; 0 images are all images."""

EPOCHS = ("local_epochs", "fedgkt_server_epochs")
"""Settings that say how many epochs as a text; each is "1"."""

SETTINGS_FILE = 'rounds = 2\npartition = "classes:2"\n'
BUDGETS_FILE = '[[budget]]\nname = "phone"\nmacs = "6M"\n[[budget]]\nmemory = "120KB"\n'
ELSEWHERE = re.compile(
    r"feddac ((compare|tune) (methods|peers|skewed|figure|autoflip)|(up|submit|supernode|register|unregister)\b)"
    r"|feddac simulate --ray-address"
)
PLACEHOLDER = re.compile(r"\b(FILE|FOLDER|RUN_FOLDER|KEY|NAME)\b|package\.module")
ALONE = ("feddac profiles", "feddac presets", "feddac runs", "feddac device")
"""Commands that a sentence may name without any argument, and are whole then."""


def commands_of(text: str) -> list[str]:
    """The commands in shell blocks, where a backslash ends a line that goes on, and whole ones in sentences."""
    blocks = re.findall(r"```sh\n(.*?)```", text.replace("\\\n", " "), flags=re.DOTALL)
    lines = [line.rpartition(" && ")[2] for block in blocks for line in block.splitlines()]
    found = [line for line in lines if line.startswith("feddac ")]
    sentences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for one in re.findall(r"`(feddac [^`\n]+)`", sentences):
        if (" -" in one or one in ALONE) and not PLACEHOLDER.search(one):
            found.append(one)
    return [one for one in dict.fromkeys(found) if not ELSEWHERE.match(one)]


def examples_of(module: str) -> list[str]:
    """The commands below the help of the commands in this module."""
    found = import_module(f"feddac.cli.commands.{module}")
    texts = [value for name, value in vars(found).items() if name.endswith("EXAMPLES")]
    return [line.strip() for text in texts for line in text.splitlines() if line.strip().startswith("feddac ")]


README = (ROOT / "README.md").read_text()
IN_README = commands_of(README)
MADE_BY = {
    f"runs/{name}": next(one for one in IN_README if one.endswith(f"--out runs/{name}"))
    for name in ("mine", "search", "train")
}
"""The folders that commands of the README read, and which command makes each."""

LONG = [
    command
    for command in IN_README
    if command.startswith(("feddac compare", "feddac simulate --data fashion", "feddac simulate --partition"))
    or command.startswith(("feddac simulate --config", "feddac simulate --fleet phone"))
    or command in ("feddac export runs/mine", "feddac export runs/train")
]
"""Those of the README that take longest and resemble others of it, or what tests/feddac/comparison does."""

FOLLOWED = ("add-a-method.md", "api.md")
PAGES = {page.name: page.read_text() for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in FOLLOWED}
IN_PAGES = [(name, command) for name, text in PAGES.items() for command in commands_of(text)]
# In this order: some continue what others began.
HELP = [
    command
    for module in ("simulate", "search", "train", "export", "compare", "tune", "describe", "device", "listings", "keys")
    for command in examples_of(module)
    if not ELSEWHERE.match(command)
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
            for name in EPOCHS:
                if hasattr(settings, name):
                    object.__setattr__(settings, name, "1")

        patch.setattr(Settings, "__post_init__", held_down)
        simulate = import_module("feddac.cli.commands.simulate").simulate
        defaults = list(inspect.signature(simulate).parameters)
        assert defaults[1] == "engine"
        patch.setattr(simulate, "__defaults__", ("inline", *simulate.__defaults__[1:]))
        patch.setattr("common.data.download.load_download", made)
        patch.setattr("feddac.comparison.processes.start_run", start_run)
        yield


def made(name: str, data_folder: Path) -> DataSet:
    """Noise with the shape and the classes of a data set."""
    shape = (3, 32, 32) if name.startswith("cifar") else (1, 28, 28)
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
        return Images(pixels, torch.arange(count) % 10)

    return DataSet(name, images(1000), images(100), tuple(map(str, range(10))))


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
    cells = {"format": "feddac-genotype", "version": 1, **PUBLISHED["FedNAS_V1"].to_dict()}
    (home / "random-0.json").write_text(json.dumps(cells))
    write_images(home / "my-images", ("cats", "dogs", "owls"), 12, {"train": 20, "test": 4})
    write_images(home / "CIFAR10_FOLDER", tuple(map(str, range(10))), 32, {"train": 12, "test": 6})
    return home


def write_images(place: Path, classes: tuple[str, ...], side: int, counts: dict[str, int]) -> None:
    """A folder of images of noise, so many of each class in each part."""
    random = np.random.default_rng(0)
    for part, count in counts.items():
        for name in classes:
            folder = place / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workplace_of(tmp_path_factory.mktemp("readme"), "")


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workplace_of(tmp_path_factory.mktemp("help"), SETTINGS_FILE)


def assert_runs(command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    if "fedgkt" in command or "torchvision:" in command:
        monkeypatch.setitem(LARGEST, "width", 1.0)  # these networks have one width
    if "-published" in command:
        monkeypatch.setitem(LARGEST, "train_images", 1000)  # of which the server has 2 % there
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    code = run(shlex.split(command, comments=True)[1:])
    shown = capfd.readouterr()
    assert code == 0, shown.err
    assert shown.out


def test_the_commands_are_found() -> None:
    assert len(commands_of(README)) >= 20
    assert len(HELP) >= 20
    assert {name for name, _ in IN_PAGES} >= {"deployment.md", "latency.md", "peers.md", "threat-model.md"}
    assert commands_of("`feddac runs`, `feddac search` and `feddac train FILE --epochs 1`\n`feddac device --json`") == [
        *("feddac runs", "feddac device --json"),
    ]


@pytest.mark.parametrize("command", [*(one for one in IN_README if one not in LONG), *slow(*LONG)])
def test_readme_command(
    command: str, reader: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if command.startswith("feddac export"):
        pytest.importorskip("onnxruntime")
    for maker in [one for made, one in MADE_BY.items() if made in command and not (reader / made).exists()]:
        if maker != command:
            test_readme_command(maker, reader, monkeypatch, capfd)
    assert_runs(command, reader, monkeypatch, capfd)


@pytest.fixture(scope="module")
def page_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each page."""
    return {name: workplace_of(tmp_path_factory.mktemp("page"), "") for name in dict(IN_PAGES)}


@pytest.mark.slow  # up to half a minute each, none of which the README's do not resemble
@pytest.mark.parametrize(("page", "command"), IN_PAGES)
def test_command_of_a_page(
    page: str,
    command: str,
    page_folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if "--host superlink" in command:  # of the containers, on another machine
        shutil.rmtree(page_folders[page] / "keys")
    assert_runs(command, page_folders[page], monkeypatch, capfd)


@pytest.mark.slow  # thirty commands, none of which the README's do not resemble
@pytest.mark.parametrize("command", HELP)
def test_help_example(
    command: str, helped: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if command == "feddac export runs/mine":
        assert_runs("feddac simulate --out runs/mine", helped, monkeypatch, capfd)
    if "experiment.toml" in command:
        example = README.partition("# experiment.toml\n")[2].partition("```")[0]
        (helped / "experiment.toml").write_text(example)
    assert_runs(command, helped, monkeypatch, capfd)
