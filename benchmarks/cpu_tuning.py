"""What FedDAC's environment for CPUs is worth: the plainest PyTorch training loop with it, as a ratio to without it.

    python benchmarks/cpu_tuning.py --seconds 10 [--busy 2]

Each line is a process of its own that trains the full network of 6 million MACs on random images, with as many threads
as there are cores. `--busy N` lets N other processes compute meanwhile, which is what a shared machine looks like.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BATCH = 32


def train(seconds: float) -> float:
    """Images per second of a bare training loop."""
    import torch

    from common.architecture import Architecture
    from common.learning import place
    from common.models.description import BaseNetwork

    base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, stem_stride=2, strides=(1, 2, 2, 2, 1, 2, 1))
    module = place(Architecture.full(base).build(0), torch.device("cpu"))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % 10
    steps, start = 0, 0.0
    while steps < 5 or time.perf_counter() - start < seconds:
        if steps == 3:  # the first steps allocate
            start = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
    return (steps - 3) * BATCH / (time.perf_counter() - start)


def measure(seconds: float, variables: dict[str, str]) -> float:
    """`train` in a fresh process with more environment variables."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, __file__, "--seconds", str(seconds), "--train"]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--busy", type=int, default=0, help="other processes that compute meanwhile")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(train(arguments.seconds))
        return
    sys.path.insert(0, str(ROOT))
    from simulation.environment import CPU_TUNING

    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    try:
        plain = measure(arguments.seconds, {})
        print(f"{'plain':<28}{plain:7.0f} images/s")
        for name, variables in (
            *((key, {key: value}) for key, value in CPU_TUNING.items()),
            ("all of them", CPU_TUNING),
        ):
            rate = measure(arguments.seconds, variables)
            print(f"{name:<28}{rate:7.0f} images/s  {rate / plain:5.2f} x plain")
    finally:
        for process in others:
            process.kill()


if __name__ == "__main__":
    main()
