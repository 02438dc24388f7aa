"""Accuracy at equal budget and equal compute: DAC against plain scaling, random widths, L1 and slimming.

    python benchmarks/quality --data cifar10 --out docs/quality.jsonl [--show] [--groups macs] [--methods dac,uniform]

Uses every core: one process each, one thread each. Every finished task is a line of --out, from which a run that was
cut short goes on; unfinished ones go on from checkpoints in --work. `--show` says what is left and does nothing. At the
end (and with `--page` alone) table and plot are written beside --out, as .md and .svg. `--latency` measures how long
one image takes in each network, which wants an idle machine.

Budgets are shares of the MACs of one MobileNetV2, the same with parameters and peak memory bounded too (`joint`), and
half the peak memory (`memory`). Every final training has one recipe. What the search costs is given to the others as
longer training, by three rules (`benchmarks/quality/tasks.py`). The test images are looked at once per cell, after its
last epoch; nothing is chosen by them.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.quality.budgets import GROUPS
from benchmarks.quality.latency import latencies
from benchmarks.quality.material import material_of
from benchmarks.quality.page import write_page
from benchmarks.quality.processes import pool_of
from benchmarks.quality.protocol import Protocol, add_flags, protocol_of
from benchmarks.quality.rows import Row, append, read_lines, rewrite
from benchmarks.quality.tasks import METHODS, RULES, WHOLE, Plan, Task
from benchmarks.quality.work import work
from common.errors import FedDACError
from common.learning import pick_accelerator
from simulation.environment import restart_with_cpu_tuning

SKIPPABLE = (WHOLE, *(budget for budgets in GROUPS.values() for budget in budgets))


def main() -> None:
    arguments = parse()
    protocol = protocol_of(arguments)
    key = protocol.key(arguments.data_name)
    plan = Plan(
        protocol,
        [int(seed) for seed in arguments.seeds.split(",")],
        listed(arguments.groups, GROUPS),
        listed(arguments.methods, METHODS),
        listed(arguments.rules, RULES),
        listed(arguments.skip, SKIPPABLE) if arguments.skip else (),
    )
    rows = [row for row in read_lines(arguments.out) if row.get("protocol") == key]
    left = [task for task, _ in plan.tasks(rows)]
    print(f"{len(rows)} results of this protocol in {arguments.out}, {len(left)} tasks left", flush=True)
    if arguments.show:
        print(*left, sep="\n")
        return
    if left and not (arguments.page or arguments.latency):
        if not rows:
            append(arguments.out, {"protocol": key, "event": "protocol", "data": arguments.data_name, **vars(protocol)})
        folder = arguments.work / key
        folder.mkdir(parents=True, exist_ok=True)
        do_all(plan, rows, arguments, key, folder)
    if arguments.latency:
        measure(rows, arguments, protocol, key)
    print(*write_page(arguments.out, key, arguments.out.parent), sep="\n")


def do_all(plan: Plan, rows: list[Row], arguments: argparse.Namespace, key: str, folder: Path) -> None:
    """Work off the plan, `workers` tasks at a time, as soon as what they need is there."""
    accelerator = pick_accelerator("auto" if arguments.preset == "gpu" else "cpu")
    running: dict[Future[Row], Task] = {}
    begun = time.monotonic()
    with pool_of(arguments.workers) as pool:
        while True:
            busy = {task.key for task in running.values()}
            tasks = list(plan.tasks(rows))
            for task, ready in tasks:
                if len(running) < arguments.workers and ready and task.key not in busy:
                    future = pool.submit(work, task, arguments.data, plan.protocol, folder, accelerator)
                    running[future] = task
                    busy.add(task.key)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                row = {"protocol": key, **future.result()}
                append(arguments.out, row)
                rows.append(row)
                print(f"{time.monotonic() - begun:7.0f} s  {len(tasks) - 1:4} left  {described(row)}", flush=True)


def measure(rows: list[Row], arguments: argparse.Namespace, protocol: Protocol, key: str) -> None:
    """Add the latency of every network, in place of what an earlier call measured. Nothing else may write meanwhile."""
    kept = [row for row in read_lines(arguments.out) if row.get("protocol") != key or row["event"] != "latency"]
    base = material_of(arguments.data, protocol, torch.device("cpu")).base
    rewrite(arguments.out, [*kept, *({"protocol": key, **row} for row in latencies(rows, base))])


def described(row: Row) -> str:
    """A result in one line; test accuracies stay unseen until the page is written."""
    words = [str(row[name]) for name in ("event", "group", "budget", "method", "rule") if row[name]]
    words += [f"seed {row['seed']}", f"{row['epochs']} epochs", f"{row['seconds']:.0f} s"]
    if "validation_accuracy" in row:
        words.append(f"validation {row['validation_accuracy']:.2%}")
    return "  ".join(words)


def listed(text: str, known: Iterable[str]) -> list[str]:
    """The names in a list separated by commas; those of `known` only."""
    names = text.split(",")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data set: a name, a folder or a Parquet file")
    parser.add_argument("--data-name", help="what the results call it (default: the last part of --data)")
    parser.add_argument("--out", type=Path, default=Path("runs/quality.jsonl"), help="results, appended")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"), help="checkpoints and final weights")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--groups", default=",".join(GROUPS), help="groups of budgets")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rules", default=",".join(RULES), help="for how long the others train, as tasks.py says")
    parser.add_argument("--skip", default="", help="budgets to train nothing new for, such as 100%%,50%%")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--show", action="store_true", help="say what is left, and end")
    parser.add_argument("--latency", action="store_true", help="only measure how long the networks of the results take")
    parser.add_argument("--page", action="store_true", help="only write table and plot")
    add_flags(parser)
    arguments = parser.parse_args()
    arguments.data_name = arguments.data_name or Path(arguments.data).stem
    return arguments


if __name__ == "__main__":
    restart_with_cpu_tuning()
    try:
        main()
    except FedDACError as error:
        raise SystemExit(f"Error: {error}") from None
