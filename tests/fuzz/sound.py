"""Sound files of every kind that a command reads, made by the commands themselves."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feddac.cli.main import run
from tests.shades import write_shades

TINY = {
    "model": "mlp",
    "devices": "2",
    "rounds": "1",
    "local-epochs": "1",
    "max-params": "15k",
    "warmup-epochs": "0",
    "epochs-per-step": "0",
    "fine-tune-epochs": "0",
    "accelerator": "cpu",
    "train-images": "200",
    "test-images": "40",
}
SEARCHED = ("model", "warmup-epochs", "fine-tune-epochs", "accelerator", "train-images", "test-images")
SHORT_TRAINING = ["--epochs", "1", "--accelerator", "cpu", "--train-images", "200", "--test-images", "40"]
FLEET = '[[device]]\nname = "small"\ncount = 2\nparams = "15k"\nmacs = 20000\n\n[[device]]\nname = "large"\n'
SETTINGS = "".join(f"{key} = {json.dumps(int(value) if value.isdigit() else value)}\n" for key, value in TINY.items())
SETTINGS = SETTINGS.replace("local-epochs = 1", 'local-epochs = "1"')
EXPERIMENT = f'title = "Two"\nseeds = [0]\nbaseline = "a"\n\n[settings]\n{SETTINGS}\n[methods.a]\n'


def make_sound_files(folder: Path) -> dict[str, dict[str, bytes]]:
    """Fill the new `folder`; returns the weights of its runs, by the run's name."""
    folder.mkdir()
    for name, text in (("fleet.toml", FLEET), ("settings.toml", SETTINGS), ("experiment.toml", EXPERIMENT)):
        (folder / name).write_text(text)
    write_shades(folder / "images", 20)
    _write_parquet(folder / "images.parquet", folder / "images")
    searching = [word for key, value in TINY.items() if key in SEARCHED for word in (f"--{key}", value)]
    searching += ["--max-params", "15k,12k", "--epochs-per-step", "1"]
    with inside(folder):
        assert run(["simulate", *flags_of({"rounds": "1"}), "--out", "cut"]) == 0
        shutil.copytree("cut", "run")
        assert run(["simulate", "--engine", "inline", "--resume", "run", "--rounds", "2"]) == 0
        assert run(["search", *searching, "--out", "search"]) == 0
        assert run(["train", "search/architectures/budget-1.json", *SHORT_TRAINING, "--out", "train"]) == 0
        assert run(["certificates", "keys", "--host", "server.example", "--device", "camera"]) == 0
        assert run(["compare", "experiment.toml", "--out", "compared", "--engine", "inline"]) == 0
    return {name: weights(folder / name) for name in ("run", "search", "train")}


def flags_of(flags: dict[str, str], fleet: str = "phone") -> list[str]:
    whole = {**TINY, **flags} if "rounds" in flags and len(flags) == 1 else flags
    return [
        "--engine",
        "inline",
        "--fleet",
        fleet,
        *(word for key, value in whole.items() for word in (f"--{key}", value)),
    ]


def weights(folder: Path) -> dict[str, bytes]:
    files = [path for place in ("models", "architectures") for path in (folder / place).glob("*.safetensors")]
    return {path.name: path.read_bytes() for path in sorted(files)}


def _write_parquet(path: Path, images: Path) -> None:
    files = sorted(images.rglob("*.png"))
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": [int(file.parent.name == "light") for file in files],
    }
    pq.write_table(pa.table(rows), path)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
