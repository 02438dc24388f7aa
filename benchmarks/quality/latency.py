"""How long one image takes in the networks of the results: ONNX Runtime, one thread, on this machine."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.latency import interleaved, untrained
from benchmarks.quality.budgets import budgets_of
from benchmarks.quality.rows import Row
from benchmarks.quality.work import found_network, scaled
from common.architecture import Architecture
from common.models.description import BaseNetwork
from dac.export import export_onnx, network_program, processor

SCALED = ("uniform", "shallow", "width")
"""Methods whose networks follow from the budget alone."""


def latencies(rows: list[Row], base: BaseNetwork) -> list[Row]:
    """A row for every network of the search, of SCALED and the whole one: the least processor time of one image.

    In float32. All are measured in turn, in one process, so that other work on the machine disturbs all alike; so the
    times of one file are those of one call.
    """
    networks = dict(_networks(rows, base))
    distinct = list(dict.fromkeys(networks.values()))
    with tempfile.TemporaryDirectory() as folder:
        files = [_exported(one, Path(folder, f"{number}.onnx")) for number, one in enumerate(distinct)]
        times = dict(zip(distinct, interleaved(files, base.input_shape), strict=True))
    return [
        {
            "event": "latency",
            "seed": seed,
            "method": method,
            "budget": budget,
            "milliseconds": round(times[network], 4),
            "processor": processor(),
        }
        for (seed, method, budget), network in networks.items()
    ]


def _exported(network: Architecture, path: Path) -> Path:
    classifier = untrained(network)
    export_onnx(classifier, path, network_program(classifier))
    return path


def _networks(rows: Iterable[Row], base: BaseNetwork) -> Iterator[tuple[tuple[int, str, str], Architecture]]:
    """The networks of the rows by seed, method and budget."""
    for row in rows:
        if row["event"] == "search":
            for budget, found in row["found"].items():
                for method in ("dac", "dac-fresh"):
                    yield (row["seed"], method, budget), found_network(base, found)
        elif row["event"] == "whole":
            yield (row["seed"], row["method"], row["budget"]), Architecture.full(base)
        elif row["event"] == "cell" and row["method"] in SCALED and "unfit" not in row:
            bound = budgets_of(base, row["group"])[row["budget"]]
            yield (row["seed"], row["method"], row["budget"]), scaled(base, row["method"], bound)
