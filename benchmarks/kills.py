"""Kill runs at random moments, resume them, and compare the weights with those of an undisturbed run, bit by bit.

    python benchmarks/kills.py [--simulate 20] [--up 10] [--seed 0] [--folder runs/kills]

In turn the moment lies in the search, in the rounds, within milliseconds of a checkpoint's first file, or at the end,
when models, summary and report are written; where in that stage, chance decides. A simulation is one process, which is
killed (SIGKILL). Of `feddac up` either the command alone is killed or, as in a power cut, every process of the
federation at once. The exit code is 0 only if every run was resumed and every weight is the same.

Commands run in processes forked from this one, which has imported PyTorch already.
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import simulation.engines  # noqa: F401 (with all that a run needs)
from feddac.cli.main import run as feddac
from feddac.deployment import leftovers
from server.run_folder import RunFolder

ROUNDS = 6
SETTINGS: dict[str, str | int] = {
    "model": "mlp",
    "devices": 4,
    "fleet": "phone,workstation,large-microcontroller",
    "max-params": "15k",
    "rounds": ROUNDS,
    "warmup-epochs": 4,
    "epochs-per-step": 1,
    "fine-tune-epochs": 2,
    "accelerator": "cpu",
}
STAGES = ("search", "rounds", "checkpoint", "report")
CHECKPOINT_WRITE_SECONDS = 0.01
LONGEST_SECONDS = 600.0
TRIES = 10


@dataclass(frozen=True)
class Undisturbed:
    """The weights of a run that nobody killed, and how many seconds each stage took."""

    weights: dict[str, bytes]
    seconds: dict[str, float]


class Run:
    """A running `feddac simulate` or `feddac up` whose run folder is `folder`."""

    def __init__(self, command: str, folder: Path, resume: bool) -> None:
        self.folder = folder
        flags = [word for key, value in SETTINGS.items() for word in (f"--{key}", str(value))]
        engine = ["--engine", "inline"] if command == "simulate" else []
        arguments = ["--resume", str(folder)] if resume else [*flags, "--out", str(folder)]
        self._process = multiprocessing.get_context("fork").Process(
            target=_feddac, args=([command, *engine, *arguments], folder.with_name(f"{folder.name}.log"))
        )
        self._process.start()

    def wait(self) -> int | None:
        """Its exit code; None if it does not end."""
        self._process.join(LONGEST_SECONDS)
        return self._process.exitcode

    def wait_for(self, condition: Callable[[], bool], pause: float) -> bool:
        """Return as soon as `condition` holds; False if the run has ended before."""
        while not condition():
            if self._process.exitcode is not None:
                return False
            time.sleep(pause)
        return True

    def kill(self, everything: bool) -> bool:
        """End it without a warning, and with `everything` whatever it has started; False if it had ended by itself."""
        if self._process.exitcode is not None:
            return False
        others = [*leftovers.find(self.folder / "deployment"), *_children(self._process.pid or 0)] if everything else []
        self._process.kill()
        for process in others:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.wait()
        return True


def undisturbed(folder: Path) -> Undisturbed:
    """Run it once to its end; raises SystemExit if it fails."""
    if Run("simulate", folder, resume=False).wait():
        raise SystemExit(f"the undisturbed run failed; its output is {folder}.log")
    seconds = {event["stage"]: float(event["seconds"]) for event in RunFolder.open(folder).events("stage")}
    return Undisturbed(weights_of(folder), {**seconds, "checkpoint": CHECKPOINT_WRITE_SECONDS})


def weights_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every model of a run."""
    return {path.name: path.read_bytes() for path in sorted((folder / "models").glob("*.safetensors"))}


def kill_once(
    command: str, stage: str, everything: bool, folder: Path, whole: Undisturbed, chance: random.Random
) -> str:
    """Begin a run and kill it in `stage`; returns where it was then, or "" if it ended first."""
    run = Run(command, folder, resume=False)
    number = chance.randint(1, ROUNDS)
    begins: dict[str, Callable[[], bool]] = {
        "search": lambda: _has(folder, '"stage": "handshake"'),
        "rounds": lambda: _has(folder, '"event": "round"'),
        "checkpoint": lambda: (folder / f"checkpoint/round-{number:05d}").exists(),
        "report": lambda: (folder / f"checkpoint/round-{ROUNDS:05d}/state.json").exists(),
    }
    precise = stage in ("checkpoint", "report")
    if not run.wait_for(begins[stage], 0.0005 if precise else 0.02):
        return ""
    length = {"report": 1.0}.get(stage, whole.seconds.get(stage, 1.0))
    time.sleep(chance.uniform(0, length))
    if not run.kill(everything):
        return ""
    return _where(folder)


def main() -> None:
    """Kill, resume, compare; print one row per kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", type=int, default=20)
    parser.add_argument("--up", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/kills"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    os.environ.update({"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)})
    chance = random.Random(arguments.seed)
    whole = undisturbed(arguments.folder / "undisturbed")
    print("| | command | killed | what was on the disk | resumed in s | same weights |")
    print("|---:|---|---|---|---:|---|", flush=True)
    same = 0
    commands = ["simulate"] * arguments.simulate + ["up"] * arguments.up
    for number, command in enumerate(commands):
        stage, everything = STAGES[number % len(STAGES)], command == "up" and number % 2 == 0
        for attempt in range(TRIES):
            folder = arguments.folder / f"{number:02d}-{attempt}"
            if where := kill_once(command, stage, everything, folder, whole, chance):
                break
        else:
            raise SystemExit(f"no run could be killed in its {stage} within {TRIES} tries")
        start = time.monotonic()
        code = Run(command, folder, resume=(folder / "config.toml").exists()).wait()
        equal = code == 0 and weights_of(folder) == whole.weights
        same += equal
        target = f"{stage}, all processes" if everything else stage
        row = (number + 1, command, target, where, f"{time.monotonic() - start:.1f}", "yes" if equal else "NO")
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print(f"\n{same} of {len(commands)} killed runs were resumed to the weights of the undisturbed run")
    raise SystemExit(0 if same == len(commands) else 1)


def _feddac(arguments: list[str], log: Path) -> None:
    """Run one command in this process, which was forked for it."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    raise SystemExit(feddac(arguments))


def _has(folder: Path, part: str) -> bool:
    try:
        return part in (folder / "metrics.jsonl").read_text()
    except OSError:
        return False


def _where(folder: Path) -> str:
    """What a run has left: the last event, the round of its checkpoint, and whether files of the end are there."""
    run = RunFolder(folder)
    events = run.events()
    last = events[-1] if events else {"event": "no event"}
    rounds = [path.name for path in sorted((folder / "checkpoint").glob("round-*"))]
    parts: Sequence[str] = (
        str(last["event"]) + (f" {last['round']}" if "round" in last else ""),
        f"checkpoint {' and '.join(rounds) or 'none'}",
        *(path.name for path in (run.summary_path, run.report_path) if path.exists()),
    )
    return ", ".join(parts)


def _children(process: int) -> list[int]:
    found = subprocess.run(["ps", "--ppid", str(process), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


if __name__ == "__main__":
    main()
