"""A thousand devices of which a fifth misbehaves, and three hundred rounds: that both end, and what they take.

    python benchmarks/endurance.py hostile [--devices 1000] [--each 50] [--timeout 60] [--data fashion-mnist]
    python benchmarks/endurance.py long [--rounds 300]

Both are whole federations, the server's and the devices' own code in this one process (`--engine inline`), with the
smallest network. Nothing is simulated but the misbehaviour:

    raising   raises an error in every round
    nan       sends weights that are not numbers
    lying     claims a thousand million samples
    slow      its reply has not come when the round's time is over

`hostile` prints what became of each kind in each round, and the peak resident set of the process; its exit code is 0
only if every device that misbehaved is named in the metrics with the reason, all others trained, and the peak is below
6 GiB.

`long` compares the first hundred rounds after the tenth with the last hundred: processor time per round, the resident
set, and the bytes by which the run folder, but for the report, grew per round. Where others use the machine a processor
is slower from minute to minute, so the time of a round is also given in that of a fixed piece of work, done after each
round. The exit code is 0 only if time (in pieces of work), memory and growth are at most 5 % above the earlier ones.

Memory is read from /proc, so this runs on Linux only.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from client.app import handshake as honest_handshake
from client.app import train as honest_train
from common.config import Config
from common.messages import WEIGHTS
from common.progress import Silent
from common.settings import Scalar
from server.federation import federate
from server.run_folder import RunFolder
from simulation.grid import InlineGrid

KINDS = ("raising", "nan", "lying", "slow")
MOST_BYTES = 6 * 2**30
FLAT = 1.05
SETTINGS: dict[str, Scalar] = {
    "model": "mlp",
    "fleet": "phone",
    "warmup-epochs": 1,
    "epochs-per-step": 0,
    "step-share": 1.0,
    "fine-tune-epochs": 0,
    "local-epochs": "1",
    "handshake-timeout": 3600.0,
    "accelerator": "cpu",
}
SLOW_ROUND = 10


class HostileGrid(InlineGrid):
    """The first `each` devices are of the first kind, the next of the second, and so on; the others are honest."""

    each: ClassVar[int] = 0

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """No reply of a slow device to a training message comes in time."""
        in_time = []
        for one in message_ids:
            message = self._pending.get(one)
            partition = int(self._context(message).node_config["partition-id"]) if message else 0
            if message is None or message.metadata.message_type != "train" or kind_of(partition, self.each) != "slow":
                in_time.append(one)
        return super().pull_messages(in_time)


def kind_of(partition: int, each: int) -> str:
    """How the device misbehaves, or "honest"."""
    number = partition // each
    return KINDS[number] if number < len(KINDS) else "honest"


def hostile_app(each: int) -> ClientApp:
    """The real client app, and what is wrong with a fifth of the devices."""
    app = ClientApp()

    @app.query("handshake")
    def handshake(message: Message, context: Context) -> Message:
        return honest_handshake(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        kind = kind_of(int(context.node_config["partition-id"]), each)
        if kind == "raising":
            raise RuntimeError("out of memory")
        reply = honest_train(message, context)
        if kind == "nan":
            weights = reply.content.array_records["arrays"][WEIGHTS].numpy()
            reply.content["arrays"] = ArrayRecord({WEIGHTS: Array(np.full_like(weights, np.nan))})
        if kind == "lying":
            reply.content.metric_records["result"]["num-examples"] = 10**9
        return reply

    return app


def hostile(arguments: argparse.Namespace, folder: Path) -> bool:
    """Four rounds of a fleet of which four times `each` devices misbehave; whether all is as it should be."""
    devices, each = arguments.devices, arguments.each
    config = Config.from_mapping(
        {
            **SETTINGS,
            "devices": devices,
            "rounds": 4,
            "data": arguments.data,
            "partition": "paper-iid:5",
            "reference-fraction": 0.05,
            "test-images": 1000,
            "max-params": "30k",
            "round-timeout": arguments.timeout,
        }
    )
    HostileGrid.each = each
    run_here(config, folder, hostile_app(each), HostileGrid)
    events, entries = RunFolder.open(folder).events("device"), RunFolder.open(folder).read_budgets()
    sound = True
    print("| devices | round 1 | round 2 | round 3 | round 4 | the reason given for the first |")
    print("|---|---|---|---|---|---|")
    for kind in (*KINDS, "honest"):
        names = {one.name for one in entries if kind_of(one.partition, each) == kind}
        own = [event for event in events if event["device"] in names]
        rounds = [Counter(event["status"] for event in own if event["round"] == number) for number in range(1, 5)]
        reasons = [event["reason"] for event in own if event["status"] != "trained"]
        cells = [", ".join(f"{count} {status}" for status, count in found.items()) or "not asked" for found in rounds]
        print(f"| {len(names)} {kind} | {' | '.join(cells)} | {(reasons or ['none'])[0]} |")
        if kind == "honest":
            sound &= all(found == Counter(trained=len(names)) for found in rounds)
        else:
            sound &= all(found["trained"] == 0 for found in rounds) and {event["device"] for event in own} == names
            sound &= all(reasons)
    peak = status_bytes("VmHWM:")
    print(f"\npeak resident set {peak / 2**20:.0f} MiB, {time.process_time():.0f} s of processor time in all")
    return sound and peak < MOST_BYTES


@dataclass(frozen=True)
class Reading:
    """What a round and a fixed piece of work took, and what process and run folder then held."""

    round_seconds: float
    work_seconds: float
    resident_bytes: int
    folder_bytes: int


class Watch(Silent):
    """Takes a reading after every round."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._since = time.process_time()
        self.readings: list[Reading] = []

    def advance(self, stage: str, units: int, message: str) -> None:
        """Called after each round with one unit, and with none when a device has answered."""
        if stage != "rounds" or units != 1:
            return
        over = time.process_time()
        files = [path for path in self._folder.rglob("*") if path.is_file() and path.name != "report.html"]
        size = sum(path.stat().st_size for path in files)
        begin = time.process_time()
        fixed_work()
        self.readings.append(Reading(over - self._since, time.process_time() - begin, status_bytes("VmRSS:"), size))
        self._since = time.process_time()


def fixed_work() -> None:
    """A few milliseconds of what a round does: small tensors and dictionaries."""
    values = np.ones(4096, np.float32)
    for number in range(400):
        values = values * np.float32(0.5) + np.float32(number)
        {str(key): key for key in range(20)}


def long(arguments: argparse.Namespace, folder: Path) -> bool:
    """Many rounds of two devices; whether the last hundred take what the first took."""
    changes: dict[str, Scalar] = {"devices": 2, "rounds": arguments.rounds, "max-params": "15k"}
    watch = Watch(folder)
    run_here(Config.from_mapping({**SETTINGS, **changes}), folder, app_of_devices(), InlineGrid, watch)
    readings = watch.readings
    first, last = readings[SLOW_ROUND : SLOW_ROUND + 101], readings[-101:]
    print("| per round | rounds 11 to 110 | the last hundred | change |")
    print("|---|---:|---:|---:|")
    flat = True
    for part in (first, last):
        print(f"({1e3 * statistics.median(one.round_seconds for one in part):.1f} ms of processor time a round)")
    for name, unit, before, after in (
        ("processor time, median", "pieces of work", _pieces(first), _pieces(last)),
        ("resident set, mean", "MiB", _resident(first), _resident(last)),
        ("growth of the run folder", "bytes", _growth(first), _growth(last)),
    ):
        print(f"| {name} | {before:.1f} {unit} | {after:.1f} {unit} | {100 * (after / before - 1):+.1f} % |")
        flat &= after <= FLAT * before
    return flat


def run_here(
    config: Config, folder: Path, app: ClientApp, grid_class: type[InlineGrid], progress: Silent | None = None
) -> None:
    """One federation in this process and thread."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SUPERLINK_NODE_ID
    count = config.fleet.devices
    nodes = [{"partition-id": number, "num-partitions": count} for number in range(count)]
    grid = grid_class(app, nodes, config.to_mapping(), Run.create_empty(1))
    with RunFolder.create(folder) as place:
        place.write_config(config.to_mapping())
        federate(grid, config, place, progress or Silent(), False)


def app_of_devices() -> ClientApp:
    """The real client app."""
    from client.app import app

    return app


def status_bytes(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def _pieces(readings: Sequence[Reading]) -> float:
    return statistics.median(one.round_seconds / one.work_seconds for one in readings)


def _resident(readings: Sequence[Reading]) -> float:
    return statistics.mean(one.resident_bytes for one in readings) / 2**20


def _growth(readings: Sequence[Reading]) -> float:
    return (readings[-1].folder_bytes - readings[0].folder_bytes) / (len(readings) - 1)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("hostile", "long"))
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--each", type=int, default=50)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        sound = (hostile if arguments.what == "hostile" else long)(arguments, Path(place) / "run")
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    main()
