"""Every command in the README runs as it is printed, here made short by settings of its own."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.e2e.conftest import ROOT, feddac

# Appended to each command; later flags win, so the command itself stays as printed.
SEARCH = [
    *("--warmup-epochs", "1", "--epochs-per-step", "0", "--fine-tune-epochs", "0"),
    *("--step-share", "0.9", "--search-batch-size", "64"),
]
SHORT = {
    "simulate": [*SEARCH, "--engine", "inline", "--rounds", "1", "--width", "0.25"],
    "report": [],
    "runs": [],
    "compare": [*SEARCH, "--rounds", "1", "--model", "mlp", "--seeds", "0"],
    "describe": [],
    "search": [*SEARCH, "--width", "0.25", "--max-macs", "400k,300k"],
    "train": ["--epochs", "1"],
    "export": [],
}
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
LINES = [line.rpartition(" && ")[2] for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("feddac ")]
NEEDS_NETWORK = ("--data fashion-mnist",)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README's commands name."""
    home = tmp_path_factory.mktemp("readme")
    for name, content in re.findall(r"```toml\n# (\w+\.toml)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        (home / name).write_text(content)
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 4)):
        for name in ("cats", "dogs", "owls"):
            folder = home / "my-images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return home


def test_the_readme_has_commands_and_all_of_them_are_known_here() -> None:
    assert len(COMMANDS) >= 8
    assert {shlex.split(command)[1] for command in COMMANDS} <= set(SHORT)


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command(command: str, workplace: Path) -> None:
    """In the order of the README: some continue what others began."""
    name, *flags = shlex.split(command)[1:]
    short = ["--engine", "inline"] if "--resume" in flags else [*SHORT[name]]
    short += ["--joint-epochs", "1"] if "--joint-epochs" in flags else []
    nobody = "http://127.0.0.1:9"
    done = feddac([name, *flags, *short], workplace, {"HTTPS_PROXY": nobody, "HTTP_PROXY": nobody})
    if any(part in command for part in NEEDS_NETWORK):
        assert done.returncode == 1
        assert "--data" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout
