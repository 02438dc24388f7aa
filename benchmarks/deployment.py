"""What the runtime of separate processes costs: time to the first training message, per round, and bytes on the wire.

    python benchmarks/deployment.py [--devices 4] [--rounds 3] [--tls]

Starts SuperLink, server and devices on this machine as `feddac up` does. Figures:

    time to first training   from the first process's start to the first message that asks a device to train; the
                             search in between is work and shown apart
    overhead of a round      round seconds minus the seconds of the slowest device's training
    content ratio            bytes of a message's content / bytes of the model's weights, per device, round, direction
    wire ratio               bytes that Flower counts for the whole run, handshake and app bundles included / bytes of
                             the weights that had to move
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.config import Config
from common.fleet import virtual_fleet
from dac.files import load_architecture
from feddac.deployment.bundle import app_bundle
from feddac.deployment.control import Control
from feddac.deployment.follow import follow
from feddac.deployment.local import LocalFederation
from simulation.environment import set_defaults

SETTINGS = {
    "stem-stride": 2,
    "strides": "1,2,2,2,1,2,1",
    "fleet": "phone",
    "warmup-epochs": 1,
    "epochs-per-step": 0,
    "fine-tune-epochs": 0,
    "accelerator": "cpu",
    "device-evaluation": False,
}
FLOAT32_BYTES = 4


class Timeline:
    """When each event of a run's metrics was written, seen by looking often."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.events: list[tuple[float, dict[str, Any]]] = []
        self._thread.start()

    def finish(self) -> list[tuple[float, dict[str, Any]]]:
        """The events with their times."""
        self._over.set()
        self._thread.join()
        return self.events

    def _watch(self) -> None:
        last = False
        while not last:
            last = self._over.is_set()
            lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
            now = time.perf_counter()
            for line in lines[len(self.events) :]:
                if line.endswith("\n"):
                    self.events.append((now, json.loads(line)))
            time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    set_defaults()
    with tempfile.TemporaryDirectory(prefix="feddac-") as folder:
        measure(Path(folder), arguments.devices, arguments.rounds, arguments.tls)


def measure(folder: Path, number: int, rounds: int, tls: bool) -> None:
    run_folder = folder / "run"
    config = Config.from_mapping({**SETTINGS, "devices": number, "rounds": rounds, "out": str(run_folder)})
    start = time.perf_counter()
    timeline = Timeline(run_folder / "metrics.jsonl")
    devices = virtual_fleet(config.fleet, config.federation.local_training)
    with LocalFederation(folder / "deployment", devices, tls, lambda line: None) as federation:
        federation.wait_until_connected()
        connected = time.perf_counter() - start
        with Control(federation.address, federation.root_certificates) as control:
            run = control.start_run(app_bundle(config))
            status = follow(federation.address, federation.root_certificates, run, lambda line: None, federation.check)
            if not status.completed:
                raise SystemExit(str(status))
            wire = sum(control.traffic(run))
    events = timeline.finish()
    report(events, start, connected, wire, model_bytes(run_folder))


def model_bytes(run_folder: Path) -> dict[str, int]:
    """Bytes of each cohort's weights."""
    return {
        path.stem: FLOAT32_BYTES * load_architecture(path).layout.size
        for path in sorted((run_folder / "architectures").glob("*.json"))
    }


def report(
    events: list[tuple[float, dict[str, Any]]], start: float, connected: float, wire: int, model: dict[str, int]
) -> None:
    """Print the figures, times in seconds."""
    stages = {event["stage"]: event["seconds"] for _, event in events if event["event"] == "stage"}
    first = max(when for when, event in events if event["event"] == "evaluation" and event["round"] == 0) - start
    print(f"processes started and connected     {connected:8.1f} s")
    print(f"first training message              {first:8.1f} s, of which search {stages['search']:.1f} s")
    print(f"  without the search                {first - stages['search']:8.1f} s")
    rounds = [event for _, event in events if event["event"] == "round"]
    seconds = {number: max(e["seconds"] for e in rounds if e["round"] == number) for number in number_of(rounds)}
    trained = [event for _, event in events if event["event"] == "device" and event["status"] == "trained"]
    training = {number: max(e["seconds"] for e in trained if e["round"] == number) for number in seconds}
    overhead = statistics.median(seconds[number] - training[number] for number in seconds)
    print(f"round, median                       {statistics.median(seconds.values()):8.1f} s")
    print(f"  slowest device's training         {statistics.median(training.values()):8.1f} s")
    print(f"  overhead beyond training          {overhead:8.1f} s")
    moved = sum(2 * len(event["sampled"]) * model[event["cohort"]] for event in rounds)
    for direction in ("down", "up"):
        own = sum(len(event["sampled"]) * model[event["cohort"]] for event in rounds)
        content = sum(event[f"bytes_{direction}"] for event in rounds)
        print(f"content {direction:<4} / model                {content / own:8.4f}")
    print(f"wire / weights that had to move     {wire / moved:8.4f}")
    print(f"model                               {max(model.values()) / 1e6:8.2f} MB (the largest cohort's)")


def number_of(rounds: list[dict[str, Any]]) -> list[int]:
    return sorted({event["round"] for event in rounds})


if __name__ == "__main__":
    main()
