"""How long fleets of 10 to 10,000 devices take to report on Ray with two workers, and a round of 20 of them."""

import json
import os
import sys
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.serverapp import Grid

from common.config import Config
from common.data.function import allow
from common.handshake import HANDSHAKE, Hello
from common.progress import Silent
from server.exchange import exchange
from server.handshake import Greeter, handshake
from simulation.engines import run_federation

TIMEOUT_SECONDS = 600.0
DATA = "blank_images:blank"
SIZES = tuple(int(one) for one in os.environ.get("FLEETS", "10,1000,10000").split(","))


def measure(devices: int) -> dict[str, float]:
    """Seconds by the clock of the handshake, and of 20 more questions when it is over."""
    settings = {"devices": devices, "data": DATA, "partition": "iid", "fleet": "phone"}
    config = Config.from_mapping(settings)

    def server(grid: Grid, context: Context) -> dict[str, float]:
        start = time.perf_counter()
        found = handshake(Greeter(grid, TIMEOUT_SECONDS, Silent()), devices, TIMEOUT_SECONDS, Silent())
        reported = time.perf_counter()
        few = [Message(Hello.mine().encode(), one.node_id, HANDSHAKE) for one in found[:20]]
        answered = len(list(exchange(grid, few, TIMEOUT_SECONDS)))
        assert (len(found), answered) == (devices, min(20, devices))
        return {
            f"{devices} devices on Ray: handshake, s by the clock": reported - start,
            f"{devices} devices on Ray: 20 answers, s by the clock": time.perf_counter() - reported,
        }

    return run_federation("ray", server, "client.app:app", config.to_mapping(), devices, workers=2)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))  # where Ray's workers find DATA too
    allow(DATA)
    figures: dict[str, float] = {}
    for size in SIZES:
        figures |= measure(size)
    print(json.dumps(figures))
