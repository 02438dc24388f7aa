"""Accuracy against each cost, one line per method."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.summary import COSTS, LABELS, Result


def draw(results: Sequence[Result], path: Path) -> None:
    """One panel for each cost that is known; budgets of MACs alone, by the rule `family` where a method has several."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "feddac"  # the same file from the same results
    from matplotlib import pyplot as plt

    chosen = [one for one in results if one.rule in ("family", "searched") and one.budget[0].isdigit()]
    figure, axes = plt.subplots(1, len(COSTS), figsize=(20, 5), constrained_layout=True)
    for panel, (cost, label, scale) in zip(axes, COSTS, strict=True):
        for colour, method in enumerate(LABELS):
            points = sorted(
                (one.costs[cost] * scale, one.accuracy.mean, one.accuracy.deviation if one.accuracy.count > 1 else 0.0)
                for one in chosen
                if one.method == method and math.isfinite(one.costs[cost])
            )
            if points:
                x, y, error = zip(*points, strict=True)
                panel.errorbar(x, y, error, marker="o", capsize=3, color=f"C{colour}", label=LABELS[method])
        panel.set(xlabel=label, ylabel="test accuracy (%)", xscale="log")
        panel.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
