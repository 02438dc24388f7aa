"""The results as a page: what they say in words, a table, and how they were made."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.quality.budgets import SHARES
from benchmarks.quality.plot import draw
from benchmarks.quality.rows import Row, read_lines
from benchmarks.quality.summary import COSTS, LABELS, Result, summarise
from benchmarks.quality.tasks import WHOLE
from feddac.comparison.statistics import LEAST_PAIRS, Difference, paired_difference

REFERENCE = ("dac", "searched")


def write_page(results_file: Path, key: str) -> tuple[Path, Path]:
    """Table and plot beside the results file; returns both paths."""
    rows = [row for row in read_lines(results_file) if row.get("protocol") == key]
    page, plot = results_file.with_suffix(".md"), results_file.with_suffix(".svg")
    results = summarise(rows)
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
        *_sizes(results, known),
        *_reading(results, known),
        *_beside_the_whole(results, known),
        *_at_equal_latency(results, rows),
        "",
        f"![accuracy against costs]({plot.name})",
        "",
        "Test accuracy after the last epoch in per cent, mean ± sample standard deviation over seeds. Rules: *family*",
        "cells train for the search's epochs, divided by the budgets it served, longer; *alone* cells for the epochs",
        "that the search had when it found the network of this budget; *work* cells for as many as the search's MACs,",
        "divided by the budgets, are worth to a network of this size; *searched* cells had that search (L1 magnitude",
        "and slimming as many epochs of the whole network) before. Compute is in epochs of the whole network, with the",
        "share of what came before. Difference: DAC minus this row, mean over the seeds that both have and 95 %",
        "confidence interval (paired t; none of fewer than three seeds).",
        "",
        "| budget | method | rule | seeds | MACs (M) | parameters (k) | peak (kB) | ms | epochs | compute | accuracy "
        "| DAC ahead by |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for one in results:
        costs = " | ".join(_cost(one.costs[name] * scale) for name, _, scale in COSTS)
        lines.append(
            f"| {one.budget} | {LABELS[one.method]} | {one.rule} | {len(one.by_seed)} | {costs} | {one.epochs} | "
            f"{one.compute:.1f} | {_accuracy(one)} | {_ahead(one, known)} |"
        )
    made = f"Made from `{results_file.name}`, which `python benchmarks/quality --data {protocol['data']}` writes."
    return "\n".join([*lines, "", *_found(rows), f"Protocol: {shown}.", "", made, ""])


def _cost(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else ""


def _accuracy(one: Result) -> str:
    deviation = f" ± {one.accuracy.deviation:.2f}" if one.accuracy.count > 1 else ""
    return f"{one.accuracy.mean:.2f}{deviation}"


def _ahead(one: Result, known: Mapping[tuple[str, str, str], Result]) -> str:
    reference = known.get((one.budget, *REFERENCE))
    if reference is None or reference is one:
        return ""
    difference = paired_difference(reference.by_seed, one.by_seed)
    return _signed(difference) if difference.pairs else ""


def _signed(difference: Difference) -> str:
    interval = f" ± {difference.half_width:.2f}" if math.isfinite(difference.half_width) else ""
    return f"{difference.mean:+.2f}{interval}"


def _reading(results: Sequence[Result], known: Mapping[tuple[str, str, str], Result]) -> list[str]:
    """For each baseline and rule, the budgets at which DAC is ahead, behind, and neither beyond doubt."""
    lines = []
    for method, rule in dict.fromkeys((one.method, one.rule) for one in results if not one.method.startswith("dac")):
        verdicts: dict[str, list[str]] = {
            "is ahead": [],
            "is behind": [],
            "differs, but within its interval,": [],
            f"differs, on fewer than {LEAST_PAIRS} seeds,": [],
        }
        shares = []
        for one in results:
            reference = known.get((one.budget, *REFERENCE))
            if (one.method, one.rule) != (method, rule) or reference is None:
                continue
            difference = paired_difference(reference.by_seed, one.by_seed)
            if not difference.pairs:
                continue
            clear = "is ahead" if difference.mean > 0 else "is behind"
            if difference.pairs < LEAST_PAIRS:
                clear = f"differs, on fewer than {LEAST_PAIRS} seeds,"
            elif not abs(difference.mean) > difference.half_width:
                clear = "differs, but within its interval,"
            verdicts[clear].append(f"{_signed(difference)} at {one.budget}")
            shares.append(one.compute / reference.compute)
        said = [f"{verdict} by {', '.join(budgets)}" for verdict, budgets in verdicts.items() if budgets]
        if said:
            lines.append(
                f"- Against {LABELS[method]} ({rule}), with {min(shares):.2f} to {max(shares):.2f} of its compute, DAC "
                f"{'; '.join(said)}."
            )
    return lines or ["- Nothing is compared yet."]


def _sizes(results: Sequence[Result], known: Mapping[tuple[str, str, str], Result]) -> list[str]:
    """How large DAC's networks are beside plain scaling's of the same budget."""
    said = []
    for one in results:
        other = known.get((one.budget, "uniform", "family"))
        if (one.method, one.rule) == REFERENCE and other is not None:
            parameters, memory = (one.costs[name] / other.costs[name] for name in ("params", "peak_memory_bytes"))
            said.append(f"{parameters:.2f} and {memory:.2f} at {one.budget}")
    if not said:
        return []
    return [
        "- Of what uniform scaling has within each budget, DAC's networks have these shares of parameters and of peak "
        f"memory: {', '.join(said)}."
    ]


def _beside_the_whole(results: Sequence[Result], known: Mapping[tuple[str, str, str], Result]) -> list[str]:
    """What a smaller network of the search gives up."""
    whole = known.get((WHOLE, "whole", "family"))
    if whole is None:
        return []
    said = []
    for one in results:
        if (one.method, one.rule) == REFERENCE:
            difference = paired_difference(one.by_seed, whole.by_seed)
            if difference.pairs >= LEAST_PAIRS:
                said.append(f"{_signed(difference)} at {one.budget}")
    if not said:
        return []
    return [
        f"- The whole network has {_accuracy(whole)} after {whole.epochs.removeprefix('0 + ')} epochs. DAC, with as "
        f"many as the table says, minus that: {', '.join(said)}. Losses as large as these intervals are not excluded."
    ]


def _at_equal_latency(results: Sequence[Result], rows: Sequence[Row]) -> list[str]:
    """The largest networks of DAC and of plain scaling that take no longer; none is chosen by its accuracy."""
    where = {row["processor"] for row in rows if row["event"] == "latency"}
    ours, scaled = (
        [
            one
            for one in results
            if (one.method, one.rule) == which and one.budget in SHARES and math.isfinite(one.costs["milliseconds"])
        ]
        for which in (REFERENCE, ("uniform", "family"))
    )
    said = []
    for other in scaled:
        limit = other.costs["milliseconds"]
        within = [one for one in ours if one.costs["milliseconds"] <= limit]
        larger = [one for one in scaled if one.costs["macs"] > other.costs["macs"]]
        if within and all(one.costs["milliseconds"] > limit for one in larger):
            one = max(within, key=lambda each: each.costs["macs"])
            difference = paired_difference(one.by_seed, other.by_seed)
            if difference.pairs < LEAST_PAIRS:
                continue
            said.append(
                f"{_signed(difference)} in {limit:.2f} ms ({other.budget} of the "
                f"MACs scaled, {one.budget} found, which takes {one.costs['milliseconds']:.2f})"
            )
    if not said:
        return []
    return [
        f"- At equal measured latency (one image, ONNX Runtime, float32, one thread, {', '.join(sorted(where))}), the "
        f"largest networks that take no longer, DAC minus uniform scaling (family) is {'; '.join(said)}. Both have "
        "widths that are no multiples of 8, which this runtime is slow with."
    ]


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
