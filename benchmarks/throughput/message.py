"""What a message costs a device of a deployment: processor time and seconds by the clock beyond the training itself."""

import json
import os
import tempfile
import time
from pathlib import Path

from common.config import Config
from common.fleet import virtual_fleet
from feddac.deployment.bundle import app_bundle
from feddac.deployment.control import Control
from feddac.deployment.follow import follow
from feddac.deployment.local import LocalFederation
from simulation.environment import set_defaults

ROUNDS = 4
SETTINGS = {
    "model": "mlp",
    "fleet": "phone",
    "devices": 2,
    "rounds": ROUNDS,
    "method": "fedavg",
    "accelerator": "cpu",
}
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_of_group(group: int) -> float:
    """CPU seconds of the processes of a group so far, and of those that they have waited for."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        if int(fields[2]) == group:
            total += sum(map(int, fields[11:15]))
    return total / _TICKS


def main() -> None:
    set_defaults()
    with tempfile.TemporaryDirectory(prefix="feddac-") as folder:
        run_folder = Path(folder) / "run"
        config = Config.from_mapping({**SETTINGS, "out": str(run_folder)})
        devices = virtual_fleet(config.fleet, config.federation.local_training)
        used: dict[int, float] = {}
        with LocalFederation(Path(folder) / "deployment", devices, False, lambda line: None) as federation:
            groups = [process.pid for process in federation.supernodes.values()]

            def look() -> None:
                federation.check()
                done = len({event["round"] for event in rounds_of(run_folder)})
                used.setdefault(done, sum(map(cpu_of_group, groups)))

            federation.wait_until_connected()
            with Control(federation.address, None) as control:
                run = control.start_run(app_bundle(config))
                status = follow(federation.address, None, run, lambda line: None, look)
                assert status.completed, status
            time.sleep(1)
            used[ROUNDS] = sum(map(cpu_of_group, groups))
        events = rounds_of(run_folder)
        seconds = sorted(max(one["seconds"] for one in events if one["round"] == n) for n in range(1, ROUNDS + 1))
    first = min(number for number in used if number >= 1)
    messages = len(devices) * (ROUNDS - first)
    print(
        json.dumps(
            {
                "a message to a deployed device, s": (used[ROUNDS] - used[first]) / messages,
                "a round of two devices, s by the clock": seconds[len(seconds) // 2],
            }
        )
    )


def rounds_of(folder: Path) -> list[dict[str, float]]:
    """The events of rounds that are over."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in events if event["event"] == "round"]


if __name__ == "__main__":
    main()
