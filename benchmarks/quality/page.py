"""The results as a page: what they say in words, a table, and how they were made."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.quality.plot import draw
from benchmarks.quality.reading import REFERENCE, accuracy_of, sentences, signed
from benchmarks.quality.rows import Row, read_lines
from benchmarks.quality.summary import COSTS, LABELS, Result, summarise
from common.errors import DataError
from feddac.comparison.statistics import paired_difference


def write_page(results_file: Path, key: str, folder: Path) -> tuple[Path, Path]:
    """Table and plot in `folder`, under the name of the results file; returns both paths.

    Raises DataError where no cell of this protocol is done yet.
    """
    rows = [row for row in read_lines(results_file) if row.get("protocol") == key]
    page, plot = (folder / f"{results_file.stem}{suffix}" for suffix in (".md", ".svg"))
    results = summarise(rows)
    if not results:
        raise DataError(f"{results_file} has no finished cell of this protocol: run the same command without --page")
    draw(results, plot)
    protocol = next(row for row in rows if row["event"] == "protocol")
    page.write_text(as_markdown(results, rows, protocol, results_file, plot), encoding="utf-8")
    return page, plot


def as_markdown(results: Sequence[Result], rows: Sequence[Row], protocol: Row, results_file: Path, plot: Path) -> str:
    """The whole page."""
    known = {(one.budget, one.method, one.rule): one for one in results}
    shown = ", ".join(
        f"{name} {value}" for name, value in protocol.items() if name not in ("protocol", "event", "data")
    )
    lines = [
        f"# Accuracy at equal budget: {protocol['data']}",
        "",
        *sentences(results, rows),
        "",
        f"![accuracy against costs]({plot.name})",
        "",
        "Test accuracy after the last epoch in per cent, mean ± sample standard deviation over seeds. Rules: *family*",
        "cells train for the search's epochs, divided by the budgets it served, longer; *alone* cells for the epochs",
        "that the search had when it found the network of this budget; *work* cells for as many as the search's MACs,",
        "divided by the budgets, are worth to a network of this size; *searched* cells had that search before. L1",
        "magnitude and slimming train one whole network before, *searched* for the epochs of the search, *work* for as",
        "many as its MACs are worth. Compute is in epochs of the whole network, with the share of what came before,",
        "and of a teacher. Difference: DAC minus this row, mean over the seeds that both have and 95 % confidence",
        "interval (paired t; none of fewer than three seeds).",
        "",
        "| budget | method | rule | seeds | MACs (M) | parameters (k) | peak (kB) | ms | epochs | compute | accuracy "
        "| DAC ahead by |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in results:
        costs = " | ".join(_cost(one.costs[name] * scale) for name, _, scale in COSTS)
        lines.append(
            f"| {one.budget} | {LABELS[one.method]} | {one.rule} | {len(one.by_seed)} | {costs} | {one.epochs} | "
            f"{one.compute:.1f} | {accuracy_of(one)} | {_ahead(one, known)} |"
        )
    made = f"Made from `{results_file.name}`, which `python benchmarks/quality --data {protocol['data']}` writes."
    return "\n".join([*lines, "", *_found(rows), f"Protocol: {shown}.", "", made, ""])


def _cost(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _ahead(one: Result, known: Mapping[tuple[str, str, str], Result]) -> str:
    reference = known.get((one.budget, *REFERENCE))
    if reference is None or reference is one:
        return ""
    difference = paired_difference(reference.by_seed, one.by_seed)
    return signed(difference) if difference.pairs else ""


def _found(rows: Iterable[Row]) -> list[str]:
    """What the searches found and cost."""
    lines = []
    for row in rows:
        if row["event"] == "search":
            members = "; ".join(
                f"{budget}: {len(one['blocks_removed'])} blocks out after {one['epochs']} epochs"
                for budget, one in row["found"].items()
            )
            lines.append(
                f"- Search {row['group']}, seed {row['seed']}: {row['epochs']} epochs, as much as "
                f"{row['whole_network_epochs']} of the whole network, {row['cpu_seconds']:.0f} s of a processor. "
                f"{members}."
            )
    return [*lines, ""]
