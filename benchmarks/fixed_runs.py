"""Did a change of the code change any weight? Run a fixed set of federations, and hash or compare what they end with.

    python benchmarks/fixed_runs.py record before.json     # before the change
    python benchmarks/fixed_runs.py compare before.json    # after it, on the same machine

Bits differ between processors and versions of torch, so no hash is kept in the repository. The noise of local
differential privacy, which otherwise comes from the system, is drawn from a fixed seed here.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = (
    "import numpy; seed = numpy.random.seed; numpy.random.seed = lambda *given: seed(7)\n"
    "from feddac.cli.main import main; main()"
)
FLEET = """
[[device]]
name = "small"
count = 3
params = "{small}"
[[device]]
name = "large"
count = 3
params = "{large}"
"""
DATA = ("--train-images", "600", "--test-images", "100", "--augment", "crop", "--search-learning-rate", "0.01")
SEARCH = ("--warmup-epochs", "2", "--epochs-per-step", "1", "--fine-tune-epochs", "1")
MLP = ("--model", "mlp", *DATA)
MOBILE = ("--model", "mobilenet_v2", "--width", "0.25", "--strides", "2,1,2,2,1,1,1", *DATA)
OVERLAP = ("--aggregation", "overlap", "--batch-norm", "frozen")

RUNS: Mapping[str, Sequence[str]] = {
    "dac-mlp": (*MLP, *SEARCH),
    "dac-mlp-ray": (*MLP, *SEARCH, "--engine", "ray"),
    "dac-mobilenet": (*MOBILE, *SEARCH),
    "dac-random-weights": (*MLP, *SEARCH, "--initial-weights", "random", "--batch-norm", "recalibrate"),
    "overlap-frozen-mobilenet": (
        *(*MOBILE, *SEARCH, *OVERLAP, "--joint-epochs", "1", "--distillation-epochs", "1"),
        *("--max-gradient-norm", "5", "--partition", "classes:2", "--masked-loss", "exclude"),
    ),
    "overlap-frozen-ray": (*MLP, *SEARCH, *OVERLAP, "--joint-epochs", "2", "--engine", "ray"),
    "overlap-weights-local": (*MLP, *SEARCH, "--aggregation", "overlap-weights", "--batch-norm", "local"),
    "paper": (*MLP, *SEARCH, "--preset", "paper", "--max-cohorts", "1"),
    "fedavg-smallest": (*MLP, "--method", "fedavg", "--pretraining-epochs", "2", "--fraction", "0.5"),
    "fedavg-largest-mobilenet": (
        *(*MOBILE, "--method", "fedavg", "--fedavg-model", "largest", "--pretraining-epochs", "1"),
        *("--local-epochs", "1-3", "--batch-norm", "frozen", "--max-gradient-norm", "1"),
    ),
    "fedavg-drop-weak": (
        *MLP,
        "--method",
        "fedavg",
        "--fedavg-model",
        "drop-weak",
        "--pretraining-epochs",
        "1",
        "--width",
        "0.5",
    ),
    "heterofl": (*MLP, "--method", "heterofl", "--pretraining-epochs", "2", "--masked-loss", "zero"),
    "heterofl-frozen-mobilenet": (
        *(*MOBILE, "--method", "heterofl", "--pretraining-epochs", "1", "--joint-epochs", "1"),
        *("--batch-norm", "frozen", "--fine-tune-epochs", "1", "--max-gradient-norm", "1"),
    ),
    "robust-median": (*MLP, *SEARCH, "--robust-aggregation", "median", "--clip-norm", "1.5"),
    "robust-trimmed": (*MLP, *SEARCH, "--robust-aggregation", "trimmed-mean", *OVERLAP),
    "capped-evaluated": (*MLP, *SEARCH, "--max-device-share", "0.4", "--device-evaluation", "--weight-decay", "0.001"),
    "private": (*MLP, *SEARCH, "--local-dp-clipping-norm", "1", "--local-dp-epsilon", "0.9"),
    "resumed": (*MLP, *SEARCH, *OVERLAP, "--patience", "9"),
    "changed-devices": (*MLP, *SEARCH, "--handshake-every", "1"),
    "heterofl-changed-devices": (*MLP, "--method", "heterofl", "--pretraining-epochs", "1"),
}


def feddac(home: Path, *arguments: str) -> None:
    """One command line in a process of its own; what it says is shown if it fails."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"feddac {' '.join(arguments)}\n{done.stdout}{done.stderr}")


def run(name: str, home: Path) -> str:
    """The hash of the final weights of one run; those that resume are cut into two parts."""
    fleet, out = home / f"{name}.toml", home / name
    small, large = ("140k", "180k") if "mobilenet_v2" in RUNS[name] else ("6k", "12k")
    fleet.write_text(FLEET.format(small=small, large=large))
    engine = () if "--engine" in RUNS[name] else ("--engine", "inline")
    cut = name == "resumed" or name.endswith("changed-devices")
    rounds = "2" if cut else "3"
    evaluation = () if "--device-evaluation" in RUNS[name] else ("--no-device-evaluation",)
    fixed = ("--fleet", str(fleet), "--rounds", rounds, "--accelerator", "cpu", "--out", str(out))
    feddac(home, "simulate", *RUNS[name], *engine, *evaluation, *fixed)
    if cut:
        if name.endswith("changed-devices"):
            text = fleet.read_text().replace('name = "small"\ncount = 3', 'name = "small"\ncount = 2')
            fleet.write_text(text + '[[device]]\nname = "small-02"\nparams = "11k"\n')
        feddac(home, "simulate", "--resume", str(out), "--rounds", "4", *engine)
    digest = hashlib.sha256()
    for path in sorted((out / "models").glob("*.safetensors")):
        for tensor, values in sorted(load_file(path).items()):
            digest.update(f"{path.stem}/{tensor}{values.shape}".encode() + values.tobytes())
    return digest.hexdigest()


def main() -> int:
    """Record or compare; 1 if a run ended with other weights than were recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    given = parser.parse_args()
    act: Callable[[dict[str, str]], int] = {"record": _record, "compare": _compare}[given.action](given.file)
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in given.only:
            found[name] = run(name, Path(folder))
            print(f"{name:28} {found[name][:16]}", flush=True)
    return act(found)


def _record(file: Path) -> Callable[[dict[str, str]], int]:
    def write(found: dict[str, str]) -> int:
        file.write_text(json.dumps(found, indent=1) + "\n")
        return 0

    return write


def _compare(file: Path) -> Callable[[dict[str, str]], int]:
    before = json.loads(file.read_text())

    def compare(found: dict[str, str]) -> int:
        changed = [name for name, digest in found.items() if before.get(name) != digest]
        print(f"{len(found) - len(changed)} of {len(found)} runs end with the recorded weights")
        for name in changed:
            print(f"  changed: {name}")
        return 1 if changed else 0

    return compare


if __name__ == "__main__":
    sys.exit(main())
