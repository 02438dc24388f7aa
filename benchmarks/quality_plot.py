"""Table and plot of what quality.py measured.

    python benchmarks/quality_plot.py docs/quality.jsonl

writes docs/quality.md and docs/quality.svg beside the results: accuracy against MACs, parameters and peak memory, mean
and standard deviation over seeds, and below them figure 3 of the paper, single runs of the published program.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Figure 3 of the paper: (accuracy %, parameters, MACs as thop counts, elements of the largest tensor, recounted)
PAPER = {
    "DAC": [
        (91.52, 2_296_922, 94.60e6, 147_456),
        (91.29, 1_338_287, 64.24e6, 134_144),
        (91.35, 1_000_234, 45.85e6, 114_688),
        (90.84, 898_514, 38.77e6, 109_568),
        (90.86, 840_821, 34.20e6, 92_160),
        (90.39, 792_021, 31.11e6, 86_016),
        (89.92, 752_074, 28.54e6, 77_824),
        (90.08, 714_059, 26.23e6, 67_584),
    ],
    "width multiplier": [
        (91.35, 2_296_922, 94.60e6, 147_456),
        (91.17, 1_402_586, 64.36e6, 147_456),
        (90.97, 986_666, 44.44e6, 98_304),
        (91.40, 881_098, 42.75e6, 98_304),
        (90.95, 832_650, 33.95e6, 98_304),
        (90.14, 715_834, 30.73e6, 98_304),
        (90.03, 609_258, 27.85e6, 98_304),
        (89.86, 512_618, 25.14e6, 98_304),
    ],
}
NAMES = {
    "full": "full network",
    "full-long": "full network, longer",
    "dac": "DAC",
    "dac-inherited": "DAC without distillation",
    "dac-scratch": "DAC architecture from scratch",
    "width": "width multiplier",
    "width-inside": "width multiplier within DAC's own costs",
    "width-distilled": "width multiplier, distilled",
    "width-long": "width multiplier, longer",
    "uniform": "uniform scaling",
    "uniform-long": "uniform scaling, longer",
    "uniform-taught": "uniform scaling, longer, distilled",
    "random": "random widths",
    "magnitude": "L1 magnitude",
    "slimming": "slimming",
}
BUDGETS = ("95M", "64M", "52M", "34M", "26M", "full-memory", "half-memory")
AXES = (("macs", "MACs (M)", 1e-6), ("params", "parameters (M)", 1e-6), ("peak_memory_bytes", "peak memory (kB)", 1e-3))


@dataclass(frozen=True)
class Result:
    """One method at one budget over its seeds: test accuracy in percent, and mean costs."""

    method: str
    budget: str
    seeds: int
    mean: float
    deviation: float  # sample standard deviation; 0 for a single seed
    costs: Mapping[str, float]
    epochs: str
    cpu_seconds: float
    by_seed: Mapping[int, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--settings", help="key of the settings, where the file holds several (default: the last)")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.results.read_text(encoding="utf-8").splitlines()]
    key = arguments.settings or rows[-1]["settings"]
    rows = [row for row in rows if row["settings"] == key]
    results = summarise(rows)
    page = arguments.results.with_suffix(".md")
    page.write_text(write_page(rows, results, arguments.results), encoding="utf-8")
    plot = arguments.results.with_suffix(".svg")
    draw(results, plot)
    print(f"{page}\n{plot}")


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[Result]:
    """Mean and standard deviation over seeds, in the order of BUDGETS and NAMES."""
    cells: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["event"] == "cell":
            cells[row["budget"], row["method"]][row["seed"]] = row
    results = []
    for budget in BUDGETS:
        for method in NAMES:
            found = list(cells.get((budget, method), {}).values())
            if not found:
                continue
            by_seed = {row["seed"]: 100 * row["test_accuracy"] for row in found}
            accuracies = list(by_seed.values())
            results.append(
                Result(
                    method,
                    budget,
                    len(found),
                    statistics.mean(accuracies),
                    statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
                    {name: statistics.mean(row[name] for row in found) for name, _, _ in AXES},
                    _range([row["epochs_before"] for row in found], [row["epochs"] for row in found]),
                    statistics.mean(row["cpu_seconds"] for row in found),
                    by_seed,
                )
            )
    return results


def write_page(rows: Sequence[Mapping[str, Any]], results: Sequence[Result], source: Path) -> str:
    """The results as Markdown."""
    settings = next(row for row in rows if row["event"] == "settings")
    shown = ", ".join(f"{name} {value}" for name, value in settings.items() if name not in ("settings", "event"))
    lines = [
        f"# Accuracy at equal budget: {settings['data']}",
        "",
        f"Made from `{source.name}` by `benchmarks/quality_plot.py`; measured by `benchmarks/quality.py`.",
        "",
        f"![accuracy against costs]({source.with_suffix('.svg').name})",
        "",
        "Test accuracy after the last epoch, mean ± sample standard deviation over seeds; costs are means over seeds.",
        "Epochs are those before (of supernet or full network) + those of the final training. Difference: to the width",
        "multiplier of the same budget (full-memory and half-memory: to the full network), mean ± sample standard",
        "deviation over the seeds that both have.",
        "",
        "| budget | method | seeds | MACs (M) | parameters (M) | peak memory (kB) | epochs | accuracy % | difference |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    references = {(result.budget, result.method): result.by_seed for result in results}
    for result in results:
        costs = " | ".join(f"{result.costs[name] * scale:.2f}" for name, _, scale in AXES)
        memory = result.budget in ("full-memory", "half-memory")
        reference = references.get(("full-memory", "full") if memory else (result.budget, "width"), {})
        lines.append(
            f"| {result.budget} | {NAMES[result.method]} | {result.seeds} | {costs} | {result.epochs} | "
            f"{_spread(result)} | {_difference(result.by_seed, reference)} |"
        )
    return "\n".join([*lines, "", *_reading(results), *_search_cost(rows, results), f"Settings: {shown}.", ""])


def draw(results: Sequence[Result], path: Path) -> None:
    """Two rows of three panels: ours, and the paper's."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "feddac"  # the same file from the same results
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(15, 9), constrained_layout=True)
    memory = ("full-memory", "half-memory")
    for panel, (cost, label, scale) in zip(axes[0], AXES, strict=True):
        chosen = [one for one in results if (one.budget in memory) == (cost == "peak_memory_bytes")]
        for colour, method in enumerate(NAMES):
            points = sorted(
                (one.costs[cost] * scale, one.mean, one.deviation) for one in chosen if one.method == method
            )
            if points:
                x, y, error = zip(*points, strict=True)
                panel.errorbar(x, y, error, marker="o", capsize=3, color=f"C{colour}", label=NAMES[method])
        panel.set(xlabel=label, ylabel="test accuracy (%)", title="measured here")
        panel.grid(alpha=0.3)
        if chosen:
            panel.legend(fontsize=8)
    published = (
        (2, "MACs as thop counts (M)", 1e-6),
        (1, "parameters (M)", 1e-6),
        (3, "largest tensor (k elements)", 1e-3),
    )
    for panel, (position, label, scale) in zip(axes[1], published, strict=True):
        for (name, runs), shade in zip(PAPER.items(), ("C1", "C3"), strict=True):
            panel.plot([run[position] * scale for run in runs], [run[0] for run in runs], "o-", color=shade, label=name)
        panel.set(xlabel=label, ylabel="accuracy (%)", title="paper, figure 3: CIFAR-10, single runs")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def _reading(results: Sequence[Result]) -> list[str]:
    """Where DAC is ahead of plain scaling, and by more than the larger of the two standard deviations."""
    found = {(result.budget, result.method): result for result in results}
    lines = []
    for method in ("uniform-taught", "uniform-long", "uniform", "width-long", "width"):
        pairs = [
            (budget, found[budget, "dac"], found[budget, method])
            for budget in BUDGETS
            if (budget, "dac") in found and (budget, method) in found and "memory" not in budget
        ]
        ahead = [budget for budget, dac, other in pairs if dac.mean > other.mean]
        clearly = [b for b, dac, other in pairs if dac.mean - other.mean > max(dac.deviation, other.deviation)]
        if pairs:
            lines.append(
                f"- DAC against the {NAMES[method]}: ahead by the mean at {', '.join(ahead) or 'no budget'} of "
                f"{', '.join(budget for budget, _, _ in pairs)}; by more than the larger standard deviation at "
                f"{', '.join(clearly) or 'none'}."
            )
    half, full = found.get(("half-memory", "dac")), found.get(("full-memory", "full"))
    if half and full:
        share = half.costs["peak_memory_bytes"] / full.costs["peak_memory_bytes"]
        lines.append(
            f"- DAC with {share:.0%} of the full network's peak memory: {half.mean - full.mean:+.2f} points, where the "
            f"full network's standard deviation is {full.deviation:.2f}."
        )
    return [*lines, ""]


def _search_cost(rows: Sequence[Mapping[str, Any]], results: Sequence[Result]) -> list[str]:
    """What a family costs, in processor time of one training of the full network."""
    searches = [row for row in rows if row["event"] == "search"]
    full = [result for result in results if result.method == "full" and result.budget == "95M"]
    members = [result for result in results if result.method == "dac" and "memory" not in result.budget]
    if not searches or not full:
        return []
    search = statistics.mean(row["cpu_seconds"] for row in searches)
    epochs = statistics.mean(row["epochs"] for row in searches)
    once, final = full[0].cpu_seconds, sum(result.cpu_seconds for result in members)
    return [
        f"Search cost: one family of five budgets took {epochs:.0f} supernet epochs, {search:.0f} s of processor time, "
        f"{search / once:.2f} times the training of the full network ({once:.0f} s, {full[0].epochs} epochs); with the "
        f"final training of its {len(members)} members {(search + final) / once:.2f} times.",
        "",
    ]


def _spread(result: Result) -> str:
    return f"{result.mean:.2f} ± {result.deviation:.2f}" if result.seeds > 1 else f"{result.mean:.2f}"


def _difference(own: Mapping[int, float], reference: Mapping[int, float]) -> str:
    differences = [own[seed] - reference[seed] for seed in own if seed in reference]
    if not differences or own == reference:
        return ""
    deviation = f" ± {statistics.stdev(differences):.2f}" if len(differences) > 1 else ""
    return f"{statistics.mean(differences):+.2f}{deviation}"


def _range(before: Sequence[int], final: Sequence[int]) -> str:
    def one(values: Sequence[int]) -> str:
        return str(min(values)) if min(values) == max(values) else f"{min(values)}-{max(values)}"

    return f"{one(before)} + {one(final)}"


if __name__ == "__main__":
    main()
