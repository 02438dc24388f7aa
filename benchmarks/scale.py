"""How a federation scales with its devices: memory of the server and of everything together, and time.

    python benchmarks/scale.py [--devices 10,100,1000] [--cohorts 4] [--sampled 20] [--rounds 3] [--workers 2]
                               [--data fashion-mnist] [--folder runs/scale]

Each row is one `feddac simulate --engine ray` in a process of its own. Only the number of devices (or, with a list, of
cohorts) changes: the data set is the same, every device holds 50 images of it, the server's reference set is a
twentieth, and `sampled` devices train in a round. Figures:

    server            peak resident set of the process that runs the server and Ray's driver, with the pages of mapped
                      files that other processes share
    all processes     peak over time of the proportional set sizes (each shared page counted once) of that process,
                      Ray's own and the workers in which the devices run
    handshake, round  seconds that the server recorded; of the rounds the median

Memory is sampled from /proc twice a second, so this runs on Linux only.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.architecture import Architecture
from common.config import Config
from common.data.sources import load
from common.groups import DataSettings
from server.reference import base_network

ROOT = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, str | int | float] = {
    "model": "mobilenet_v2",
    "width": 0.5,
    "stem-stride": 2,
    "strides": "1,2,2,2,1,2,1",
    "test-images": 1000,
    "reference-fraction": 0.05,
    "partition": "paper-iid:5",
    "warmup-epochs": 1,
    "epochs-per-step": 0,
    "step-share": 1.0,
    "fine-tune-epochs": 0,
    "local-epochs": "1",
    "handshake-timeout": 3600.0,
    "round-timeout": 3600.0,
    "accelerator": "cpu",
}
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True)
class Figures:
    """What one run took: bytes and seconds."""

    server_bytes: int
    all_bytes: int
    handshake_seconds: float
    round_seconds: float
    total_seconds: float


def main() -> None:
    """Measure every combination of devices and cohorts, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=_numbers, default=[10, 100, 1000])
    parser.add_argument("--cohorts", type=_numbers, default=[4])
    parser.add_argument("--sampled", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--folder", type=Path, default=Path("runs/scale"))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("| devices | cohorts | sampled | server MiB | all processes MiB | handshake s | round s | whole run s |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for devices, cohorts in itertools.product(arguments.devices, arguments.cohorts):
        run_folder = arguments.folder / f"devices-{devices}-cohorts-{cohorts}"
        settings = {
            **SETTINGS,
            "data": arguments.data,
            "devices": devices,
            "rounds": arguments.rounds,
            "fraction": min(1.0, arguments.sampled / devices),
            "fleet": str(_fleet(arguments.folder, arguments.data, devices, cohorts)),
            "out": str(run_folder),
        }
        found = measure(settings, arguments.workers, run_folder)
        sampled, formed = _as_run(run_folder)
        print(
            f"| {devices} | {formed} | {sampled} | {found.server_bytes / 2**20:.0f} | {found.all_bytes / 2**20:.0f} | "
            f"{found.handshake_seconds:.1f} | {found.round_seconds:.1f} | {found.total_seconds:.0f} |",
            flush=True,
        )


def measure(settings: dict[str, str | int | float], workers: int, run_folder: Path) -> Figures:
    """Run one federation and watch it; raises SystemExit with its last words if it fails."""
    flags = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "feddac.cli.main", "simulate", "--workers", str(workers), *flags]
    command += ["--no-device-evaluation"]
    start = time.perf_counter()
    peak_server = peak_all = 0
    with subprocess.Popen(
        command, cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            peak_server = max(peak_server, _kilobytes(process.pid, "status", "VmHWM:"))
            tree = [process.pid, *_descendants(process.pid)]
            peak_all = max(peak_all, sum(_kilobytes(pid, "smaps_rollup", "Pss:") for pid in tree))
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(f"the run in {run_folder} failed")
    events = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    handshake = sum(e["seconds"] for e in events if e["event"] == "stage" and e["stage"] == "handshake")
    rounds: dict[int, float] = defaultdict(float)
    for event in events:
        if event["event"] == "round":
            rounds[event["round"]] = max(rounds[event["round"]], event["seconds"])
    return Figures(
        1024 * peak_server,
        1024 * peak_all,
        handshake,
        statistics.median(rounds.values()),
        time.perf_counter() - start,
    )


def _fleet(folder: Path, data: str, devices: int, cohorts: int) -> Path:
    """A fleet file of as many budgets as cohorts, their MACs evenly spread from a third of the base network upward."""
    config = Config.from_mapping({**SETTINGS, "data": data})
    full = (Architecture.full(base_network(config.model, load(DataSettings(data=data))))).costs
    tables = []
    for number in range(cohorts):
        share = 1.01 if number == 0 else 1 - 2 / 3 * number / cohorts
        count = devices // cohorts + (number < devices % cohorts)
        tables.append(f'[[device]]\nname = "budget-{number}"\ncount = {count}\nmacs = {round(share * full.macs)}\n')
    path = folder / f"fleet-{devices}-{cohorts}.toml"
    path.write_text("\n".join(tables))
    return path


def _as_run(run_folder: Path) -> tuple[int, int]:
    """Devices sampled in the last round, and the number of cohorts."""
    events = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    rounds = [event for event in events if event["event"] == "round"]
    last = [event for event in rounds if event["round"] == rounds[-1]["round"]]
    return sum(len(event["sampled"]) for event in last), len(last)


def _descendants(root: int) -> list[int]:
    """The processes below `root` that are alive now."""
    children = defaultdict(list)
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                # the name in parentheses may hold spaces; the parent is the second field after it
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children[parent].append(int(path.name))
    found, left = [], [root]
    while left:
        own = children[left.pop()]
        found += own
        left += own
    return found


def _kilobytes(pid: int, file: str, key: str) -> int:
    """The value of one line of a process's status in /proc; 0 for a process that is gone."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
