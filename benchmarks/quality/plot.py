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
    known = [one for one in COSTS if any(math.isfinite(result.costs[one[0]]) for result in chosen)]
    figure, axes = plt.subplots(1, len(known), figsize=(5 * len(known), 5), constrained_layout=True, squeeze=False)
    for panel, (cost, label, scale) in zip(axes[0], known, strict=True):
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
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
