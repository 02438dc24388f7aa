"""Results over seeds: one for each method and rule at each budget."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.quality.budgets import GROUPS
from benchmarks.quality.rows import Row
from benchmarks.quality.tasks import DRAWS, WHOLE
from common.methods.training import PASSES
from feddac.comparison.statistics import Spread, spread

LABELS = {
    "whole": "whole network",
    "dac": "DAC",
    "dac-fresh": "DAC's network, fresh weights",
    "uniform": "uniform scaling",
    "shallow": "uniform scaling without the blocks that may vanish",
    "width": "width multiplier",
    "random": "random widths",
    "magnitude": "L1 magnitude",
    "slimming": "slimming",
    "dac-taught": "DAC, taught by the whole network",
    "uniform-taught": "uniform scaling, taught alike",
}
COSTS = (
    ("macs", "MACs (M)", 1e-6),
    ("params", "parameters (k)", 1e-3),
    ("peak_memory_bytes", "peak memory (kB)", 1e-3),
    ("milliseconds", "one image (ms)", 1),
)


@dataclass(frozen=True)
class Result:
    """One method and rule at one budget over its seeds; accuracies in per cent."""

    budget: str
    method: str
    rule: str
    by_seed: Mapping[int, float]
    accuracy: Spread
    costs: Mapping[str, float]  # milliseconds are NaN where they were not measured
    epochs: str
    compute: float  # in epochs of the whole network, its share of a search, pretraining or teacher included


def summarise(rows: Sequence[Row]) -> list[Result]:
    """Mean and deviation over seeds, budgets in their order; random draws of a seed count as their mean."""
    searches = {(row["group"], row["seed"]): row for row in rows if row["event"] == "search"}
    teachers = {row["seed"]: row for row in rows if row["event"] == "whole"}
    times = {
        (row["seed"], row["method"], row["budget"]): row["milliseconds"] for row in rows if row["event"] == "latency"
    }
    cells: dict[tuple[str, str, str], dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["event"] in ("cell", "whole") and "unfit" not in row:
            method = "random" if row["method"] in DRAWS else row["method"]
            measured = times.get((row["seed"], row["method"], row["budget"]), math.nan)
            cells[row["budget"], method, row["rule"]][row["seed"]].append({**row, "milliseconds": measured})
    results = []
    for (budget, method, rule), by_seed in cells.items():
        every = [row for rows_of_seed in by_seed.values() for row in rows_of_seed]
        accuracies = {
            seed: 100 * sum(row["test_accuracy"] for row in found) / len(found) for seed, found in by_seed.items()
        }
        costs = {name: sum(row[name] for row in every) / len(every) for name, _, _ in COSTS}
        spent = [
            row["whole_network_epochs"] + _before(row, searches) + _taught(row, searches, teachers) for row in every
        ]
        compute = sum(spent) / len(spent)
        epochs = sorted({f"{row['epochs_before']} + {row['epochs']}" for row in every})
        results.append(
            Result(
                budget, method, rule, accuracies, spread(list(accuracies.values())), costs, ", ".join(epochs), compute
            )
        )
    budgets = [*(budget for group in GROUPS.values() for budget in group), WHOLE]
    return sorted(results, key=lambda one: (budgets.index(one.budget), list(LABELS).index(one.method), one.rule))


def _before(row: Row, searches: Mapping[tuple[str, int], Row]) -> float:
    """What came before a cell, in epochs of the whole network, divided among the budgets that it served."""
    if not row["epochs_before"]:
        return 0.0
    search = searches[row["group"], row["seed"]]
    spent = search["whole_network_epochs"] if row["method"].startswith("dac") else row["epochs_before"]
    return float(spent) / len(search["found"])


def _taught(row: Row, searches: Mapping[tuple[str, int], Row], teachers: Mapping[int, Row]) -> float:
    """What a teacher, the whole network, costs: its share of its own training, and a forward pass at every step."""
    if not row["method"].endswith("-taught"):
        return 0.0
    shared = teachers[row["seed"]]["whole_network_epochs"] / len(searches[row["group"], row["seed"]]["found"])
    return float(shared + row["epochs"] / PASSES)
