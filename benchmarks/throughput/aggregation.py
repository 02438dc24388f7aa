"""The server's arithmetic at 9 and 94 MB a model: folding, averaging across three cohorts, admission."""

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from common.architecture import Architecture
from common.messages import Result
from common.methods.training import weights_spec
from common.models.description import BaseNetwork
from server.aggregation import CohortMean
from server.cohorts import Cohort
from server.overlap import average_across

TIMES = 5


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def median(work: Callable[[], object]) -> float:
    """Of some calls after the first."""
    work()
    return statistics.median(seconds(work) for _ in range(TIMES))


def measure(width: float) -> dict[str, float]:
    """MobileNetV2 of this width, whole, without one channel of each group, and with every other channel."""
    base = BaseNetwork("mobilenet_v2", (3, 32, 32), 10, width=width)
    whole = Architecture.full(base)
    groups = whole.description.prunable
    networks = [
        whole,
        Architecture.with_kept(base, {group.name: range(1, group.size) for group in groups}),
        Architecture.with_kept(base, {group.name: range(0, group.size, 2) for group in groups}),
    ]
    rng = np.random.default_rng(0)
    vectors = [np.abs(rng.normal(size=one.layout.size)).astype(np.float32) for one in networks]
    cohorts = [Cohort(f"cohort-{n}", one, vectors[n], 0.5, []) for n, one in enumerate(networks)]
    totals = {}
    for cohort, vector in zip(cohorts, vectors, strict=True):
        mean = CohortMean()
        mean.fold(vector + np.float32(0.01), 7)
        total = mean.result()
        assert total is not None
        totals[cohort.name] = total
    mean = CohortMean()
    mean.fold(vectors[0], 1)
    size = len(vectors[0])
    scratch, doubled = np.zeros(size), np.ones(size)
    spec = weights_spec(whole.layout, vectors[0])
    reply = Result("fedavg", "train", 1, 10, 0.5, 1.0, 1, {"weights": vectors[0]}).encode()
    which = f"{vectors[0].nbytes / 1e6:.0f} MB"
    across = seconds(lambda: average_across(cohorts, totals, updates=True, batch_norms=True))
    return {
        f"{which}: copying a model in float64, ms": 1e3 * median(lambda: np.copyto(scratch, doubled)),
        f"{which}: folding a reply, ms": 1e3 * median(lambda: mean.fold(vectors[0], 5)),
        f"{which}: the same, ns per weight": 1e9 / size * median(lambda: mean.fold(vectors[0], 5)),
        f"{which}: average_across of three cohorts, first call, ms": 1e3 * across,
        f"{which}: average_across, ms": 1e3
        * median(lambda: average_across(cohorts, totals, updates=True, batch_norms=True)),
        f"{which}: admission of a reply, ms": 1e3 * median(lambda: Result.decode(reply, {"weights": spec}, 100)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({**measure(1.0), **measure(3.25)}))
