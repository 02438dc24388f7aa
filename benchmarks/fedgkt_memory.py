"""How much memory FedGKT's server takes as its devices grow: features lie on disk, one answer at a time is in memory.

    python benchmarks/fedgkt_memory.py [--devices 1,4,16] [--images 1000] [--side 32] [--server resnet11]
                                       [--feature-type float32] [--folder runs/fedgkt-memory]

Each row is one round of the real server half, through the strategy and its admission, in a process of its own. The
devices' answers are random features, logits and labels of the right form, made one at a time as they would arrive; the
server trains one epoch on all of them and answers. Figures:

    ready      resident set when the method is prepared: PyTorch, Flower, the networks
    peak       largest resident set of the round, the answer that was just received included
    on disk    features of all devices, the most that the run folder held
    answers    what the server keeps of the devices between two rounds: ids and logits of every image

The resident sets are those of Linux, with mapped files as far as they are mapped at that time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.supercore.task_identity import TaskIdentity

from common.arrays import Arrays
from common.budget import DeviceBudget
from common.config import Config
from common.data.augment import Preprocessor
from common.data.images import Images
from common.handshake import DeviceReport
from common.learning import Feed
from common.messages import WEIGHTS, Result
from common.methods.fedgkt import FEATURES, IDS, LABELS, LOGITS, TYPES
from common.models.description import BaseNetwork
from common.process import peak_rss_bytes
from common.progress import Silent
from server.cohorts import FederationState
from server.devices import Device
from server.methods.fedgkt import FedGKTServer
from server.reference import Reference
from server.run import Run
from server.run_folder import RunFolder
from server.strategy import MethodStrategy

CLASSES = 10


def main() -> None:
    """Measure every number of devices and print one table, or with --one a single row as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="1,4,16")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--server", default="resnet11")
    parser.add_argument("--feature-type", choices=tuple(TYPES), default="float32")
    parser.add_argument("--folder", type=Path, default=Path("runs/fedgkt-memory"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(_measured(int(chosen.devices), chosen)))
        return
    print("| devices | images each | ready MiB | peak MiB | above ready MiB | on disk MiB | answers MiB | seconds |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for count in chosen.devices.split(","):
        own = ["--devices", count, "--images", str(chosen.images), "--side", str(chosen.side), "--one"]
        own += ["--server", chosen.server, "--feature-type", chosen.feature_type, "--folder", str(chosen.folder)]
        run = subprocess.run([sys.executable, __file__, *own], check=True, capture_output=True, text=True)
        row = json.loads(run.stdout.splitlines()[-1])
        sizes = [row[key] for key in ("ready", "peak", "above", "disk", "answers")]
        cells = [count, str(chosen.images), *(f"{size / 2**20:.0f}" for size in sizes), f"{row['seconds']:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def _measured(count: int, chosen: argparse.Namespace) -> dict[str, float]:
    chosen.folder.mkdir(parents=True, exist_ok=True)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    config = Config.from_mapping(
        {
            "method": "fedgkt",
            "fedgkt-server": chosen.server,
            "fedgkt-server-epochs": "1",
            "fedgkt-feature-type": chosen.feature_type,
            "pretraining-epochs": 0,
            "accelerator": "cpu",
        }
    )
    with (
        tempfile.TemporaryDirectory(dir=chosen.folder) as place,
        RunFolder.create(Path(place) / "run") as folder,
    ):
        run = Run(config, folder, _reference(chosen.side), torch.device("cpu"), Silent())
        method = FedGKTServer(run)
        report = DeviceReport("", "", 0, chosen.images, DeviceBudget())
        devices = [
            Device(number, DeviceReport(f"device-{number:02d}", "", number, chosen.images, report.budget))
            for number in range(count)
        ]
        method.prepare(devices)
        state = FederationState()
        strategy = MethodStrategy(method, state, {one.name: one for one in devices}, run)
        messages = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), _Grid(devices))  # type: ignore[arg-type]
        ready, start = _resident(), time.perf_counter()
        watched = _Disk(folder.path / "features")
        strategy.aggregate_train(1, watched.over(_replies(messages, method, chosen)))
        if any(one.status != "trained" for one in strategy.outcomes.values()):
            raise SystemExit(f"not every answer counted: {strategy.outcomes}")
        held = method.snapshot().arrays
        answers = sum(values.nbytes for name, values in held.items() if name.startswith((IDS, LOGITS)))
        peak = peak_rss_bytes()
        seconds = time.perf_counter() - start
    return {
        "ready": ready,
        "peak": peak,
        "above": peak - ready,
        "disk": watched.largest,
        "answers": answers,
        "seconds": seconds,
    }


def _replies(messages: Sequence[Message], method: FedGKTServer, chosen: argparse.Namespace) -> Iterator[Message]:
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = str(number)
    for number, (message, cohort) in enumerate(zip(messages, method.cohorts, strict=True)):
        arrays = {WEIGHTS: cohort.weights, **_told(number, chosen)}
        result = Result("fedgkt", "extract", 1, chosen.images, 1.0, 1.0, 1, arrays)
        yield Message(result.encode(), reply_to=message)


def _told(number: int, chosen: argparse.Namespace) -> Arrays:
    generator = np.random.default_rng(number)
    shape = (chosen.images, 16, chosen.side, chosen.side)
    return {
        IDS: np.arange(chosen.images, dtype="<i4"),
        FEATURES: generator.random(shape, dtype=np.float32).astype(TYPES[chosen.feature_type]),
        LOGITS: generator.normal(size=(chosen.images, CLASSES)).astype("<f4"),
        LABELS: generator.integers(0, CLASSES, chosen.images).astype("<i4"),
    }


def _reference(side: int) -> Reference:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (20, 3, side, side), generator=generator, dtype=torch.uint8)
    feed = Feed(Images(pixels, torch.arange(20) % CLASSES), Preprocessor(torch.zeros(3), torch.ones(3), "none"), 10)
    names = tuple(map(str, range(CLASSES)))
    return Reference(BaseNetwork("resnet8", (3, side, side), CLASSES), feed, feed, feed, names)


class _Grid:
    def __init__(self, devices: Sequence[Device]) -> None:
        self._ids = [one.node_id for one in devices]

    def get_node_ids(self) -> list[int]:
        return self._ids


class _Disk:
    """The most bytes that a folder held whenever another answer came, or after the last."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.largest = folder, 0

    def over(self, replies: Iterator[Message]) -> Iterator[Message]:
        for reply in replies:
            yield reply
            del reply
            found = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
            self.largest = max(self.largest, found)


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark reads /proc, which Linux alone has")


if __name__ == "__main__":
    main()
