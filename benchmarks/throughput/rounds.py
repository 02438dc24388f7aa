"""Images per second of whole rounds on Ray with two workers, against two bare loops of PyTorch side by side.

Eight devices with 400 images each train MobileNetV2 of 6.6 million MACs (fedavg, augmented as usual); a round is
everything from its first message to the mean. A bare loop is one process with one thread: forward, backward, step
on one batch in channels-last order.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common.data.function import allow

DEVICES, ROUNDS = 8, 4
DATA = "blank_images:coloured"
BARE = """
import sys, time, torch
from torch.nn import functional
from common.architecture import Architecture
from common.models.description import BaseNetwork

torch.set_num_threads(1)
batch = int(sys.argv[1])
base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1))
module = Architecture.full(base).build(0).to(memory_format=torch.channels_last).train()
optimizer = torch.optim.SGD(module.parameters(), 0.01, 0.9)
images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
labels = torch.arange(batch) % 10


def step():
    optimizer.zero_grad()
    functional.cross_entropy(module(images), labels).backward()
    optimizer.step()


step()
print("ready", flush=True)
input()
start, steps = time.perf_counter(), 0
while time.perf_counter() < start + 10:
    step()
    steps += 1
print(steps * batch / (time.perf_counter() - start))
"""


def bare_rate(batch: int) -> float:
    """Images per second of two bare loops together."""
    command = [sys.executable, "-c", BARE, str(batch)]
    loops = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for loop in loops:
        assert loop.stdout is not None
        loop.stdout.readline()
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("\n")
        loop.stdin.flush()
    return sum(float(loop.communicate()[0]) for loop in loops)


def round_rate(batch: int, engine: str) -> float:
    """Images per second of the rounds after the first, which also starts what is started once."""
    from feddac import simulate

    with tempfile.TemporaryDirectory() as folder:
        run = simulate(
            out=Path(folder, "run"),
            engine=engine,
            workers=2 if engine == "ray" else 0,
            method="fedavg",
            data=DATA,
            reference_fraction=0.2,
            fleet="workstation",
            devices=DEVICES,
            stem_stride=2,
            strides="1,2,2,2,1,2,1",
            pretraining_epochs=0,
            rounds=ROUNDS,
            local_batch_size=batch,
            local_epochs="1",
            evaluate_every=ROUNDS + 1,
            device_evaluation=False,
        )
        lines = [json.loads(line) for line in (Path(run.folder) / "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if line["event"] == "round"][1:]
    return float(sum(line["samples"] for line in rounds) / sum(line["seconds"] for line in rounds))


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))  # where Ray's workers find DATA too
    allow(DATA)
    figures = {}
    for batch in (16, 32):
        bare = bare_rate(batch)
        figures[f"two bare loops, batches of {batch}: images/s"] = bare
        for engine in os.environ.get("ENGINES", "ray,inline").split(","):
            rate = round_rate(batch, engine)
            figures[f"whole rounds, {engine}, batches of {batch}: images/s"] = rate
            figures[f"  {engine}, batches of {batch}: to those of two bare loops"] = rate / bare
    print(json.dumps(figures))
