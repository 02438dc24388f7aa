"""Processor seconds of a whole small run on Ray, from the command to its last process, beside Flower's stock classes.

Every device trains one step on two images, in each of three rounds; two workers. Ours (fedavg) also writes what a run
writes: events, models, report. `stock_app.py` writes nothing.
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.data.function import allow

SIZES = tuple(int(one) for one in os.environ.get("FLEETS", "4,16,64,256").split(","))
ROUNDS, REFERENCE = 3, 40
DATA = "blank_images:blank"
HERE = Path(__file__).resolve()


def run(devices: int) -> None:
    """Ours."""
    from feddac import simulate

    images = REFERENCE + 2 * devices
    with tempfile.TemporaryDirectory() as folder:
        done = simulate(
            out=Path(folder, "run"),
            engine="ray",
            workers=2,
            method="fedavg",
            data=DATA,
            model="mlp",
            width=0.5,
            train_images=images,
            reference_fraction=REFERENCE / images,
            partition="iid",
            fleet="workstation",
            devices=devices,
            pretraining_epochs=0,
            rounds=ROUNDS,
            local_epochs="1",
            evaluate_every=ROUNDS + 1,
            device_evaluation=False,
        )
        events = [json.loads(line) for line in (Path(done.folder) / "metrics.jsonl").read_text().splitlines()]
    trained = [event["samples"] for event in events if event["event"] == "round"]
    assert len(trained) == ROUNDS, trained
    assert min(trained) >= devices, trained


def cpu_seconds(command: list[str]) -> float:
    """Of the command and of everything that it starts, Ray's own processes too, until the last of them has ended.

    Read ten times a second from /proc: what Ray's daemon does not wait for, no process is told at the end.
    """
    spent: dict[int, float] = {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running := descendants(os.getpid()):
        spent |= running
        if process.poll() is not None:
            reap()
        time.sleep(0.1)
    if process.returncode != 0:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return sum(spent.values())


def descendants(ancestor: int) -> dict[int, float]:
    """Processor seconds so far of each process below `ancestor`."""
    parents, seconds = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        process = int(path.parent.name)
        parents[process] = int(fields[1])
        seconds[process] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    below: set[int] = {ancestor}
    while more := {process for process, parent in parents.items() if parent in below} - below:
        below |= more
    return {process: seconds[process] for process in below - {ancestor}}


def reap() -> None:
    """Wait for orphans that have ended; they are children of this process."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    sys.path.append(str(HERE.parent))  # where Ray's workers find DATA too
    if len(sys.argv) > 1:
        allow(DATA)
        run(int(sys.argv[1]))
    else:
        set_subreaper = 36  # PR_SET_CHILD_SUBREAPER: orphans become children of this process, which waits for them
        ctypes.CDLL(None).prctl(set_subreaper, 1, 0, 0, 0)
        figures: dict[str, float] = {}
        for size in SIZES:
            ours = cpu_seconds([sys.executable, str(HERE), str(size)])
            stock = cpu_seconds([sys.executable, str(HERE.parent / "stock_app.py"), str(size), str(ROUNDS)])
            figures |= {
                f"{size} devices, {ROUNDS} rounds on Ray: CPU s": ours,
                f"{size} devices: of Flower's stock classes, CPU s": stock,
                f"{size} devices: ours / stock": ours / stock,
            }
        print(json.dumps(figures))
