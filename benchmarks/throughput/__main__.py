"""What FedDAC itself costs around the training: before and after a change, interleaved, on the same machine.

    python benchmarks/throughput [--before CHECKOUT] [--only start,message] [--repeats 5]

Every figure is the median of fresh processes, one of each checkout in turn; without `--before` there is one column.
Seconds are of the processor, unless a figure says otherwise, and so depend little on what else the machine does.
Prints a table, and JSON as its last line. The measures are the modules beside this one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MEASURES = ("start", "step", "batched", "rounds", "stock", "aggregation", "search", "handshake", "message")


def measure(name: str, checkout: Path) -> dict[str, float]:
    """One fresh process of a measure with the code of `checkout`: figures by what they are of."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(HERE / f"{name}.py")]
    done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout, measured in turn with this one")
    parser.add_argument("--only", default=",".join(MEASURES), help="measures, separated by commas")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    checkouts = [*([arguments.before.resolve()] if arguments.before else []), ROOT]
    print(f"| {'figure':<58} | {'before':>9} | {'after':>9} | before / after |\n|---|---:|---:|---:|")
    results: dict[str, list[float]] = {}
    for name in arguments.only.split(","):
        runs: list[list[dict[str, float]]] = [[] for _ in checkouts]
        for _ in range(arguments.repeats):
            for kept, checkout in zip(runs, checkouts, strict=True):
                kept.append(measure(name, checkout))
        for figure in runs[-1][0]:
            values = [statistics.median(run.get(figure, float("nan")) for run in kept) for kept in runs]
            results[figure] = values
            *before, after = values
            shown = (
                f"{before[0]:9.4g} | {after:9.4g} | {before[0] / after:14.2f}"
                if before
                else f"{'':9} | {after:9.4g} | "
            )
            print(f"| {figure:<58} | {shown} |", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
