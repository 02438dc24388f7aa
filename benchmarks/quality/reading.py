"""What the results say, in sentences: how DAC's networks compare with each baseline's and with the whole network."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from benchmarks.quality.budgets import SHARES
from benchmarks.quality.rows import Row
from benchmarks.quality.summary import LABELS, Result
from benchmarks.quality.tasks import WHOLE
from feddac.comparison.statistics import LEAST_PAIRS, Difference, paired_difference
from feddac.comparison.tables import with_deviation

REFERENCE = ("dac", "searched")
"""The method and rule that all others are compared with."""

AHEAD, BEHIND = "is ahead", "is behind"
UNCLEAR, FEW = "differs, but within its interval,", f"differs, on fewer than {LEAST_PAIRS} seeds,"
VERDICTS = (AHEAD, BEHIND, UNCLEAR, FEW)

Known: TypeAlias = Mapping[tuple[str, str, str], Result]
"""Results by budget, method and rule."""


def sentences(results: Sequence[Result], rows: Sequence[Row]) -> list[str]:
    """One Markdown list."""
    known = {(one.budget, one.method, one.rule): one for one in results}
    return [
        *_not_ahead(results, known),
        *_sizes(results, known),
        *_against_baselines(results, known),
        *_beside_the_whole(results, known),
        *_at_equal_latency(results, rows),
    ]


def accuracy_of(one: Result) -> str:
    """In per cent, with the deviation over seeds where there are several."""
    return with_deviation(one.accuracy, "{:.2f}".format)


def signed(difference: Difference) -> str:
    """The mean, with half the width of its 95 % interval where there is one."""
    interval = f" ± {difference.half_width:.2f}" if math.isfinite(difference.half_width) else ""
    return f"{difference.mean:+.2f}{interval}"


def _not_ahead(results: Sequence[Result], known: Known) -> list[str]:
    """Where DAC does not win is said first."""
    said = [
        f"{LABELS[one.method]} ({one.rule}) at {one.budget}: {signed(difference)}"
        for one, _, difference in _differences(results, known)
        if _verdict(difference) in (BEHIND, UNCLEAR)
    ]
    return [f"- DAC is not ahead beyond its interval of {'; '.join(said)}."] if said else []


def _against_baselines(results: Sequence[Result], known: Known) -> list[str]:
    """For each baseline and rule, the budgets at which DAC is ahead, behind, and neither beyond doubt."""
    compared = list(_differences(results, known))
    lines = []
    for method, rule in dict.fromkeys((one.method, one.rule) for one, _, _ in compared):
        by_verdict: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
        shares = []
        for one, reference, difference in compared:
            if (one.method, one.rule) == (method, rule):
                by_verdict[_verdict(difference)].append(f"{signed(difference)} at {one.budget}")
                shares.append(one.compute / reference.compute)
        said = [f"{verdict} by {', '.join(budgets)}" for verdict, budgets in by_verdict.items() if budgets]
        lines.append(
            f"- Against {LABELS[method]} ({rule}), which had {min(shares):.2f} to {max(shares):.2f} of DAC's compute, "
            f"DAC {'; '.join(said)}."
        )
    return lines or ["- Nothing is compared yet."]


def _differences(results: Sequence[Result], known: Known) -> Iterator[tuple[Result, Result, Difference]]:
    """Every baseline's result, DAC's within the same budget, and DAC's minus the baseline's where seeds are shared."""
    for one in results:
        reference = known.get((one.budget, *REFERENCE))
        if reference is None or one.method.startswith("dac"):
            continue
        difference = paired_difference(reference.by_seed, one.by_seed)
        if difference.pairs:
            yield one, reference, difference


def _verdict(difference: Difference) -> str:
    """Of a difference of some pairs."""
    if difference.pairs < LEAST_PAIRS:
        return FEW
    if not abs(difference.mean) > difference.half_width:  # also where no interval is known
        return UNCLEAR
    return AHEAD if difference.mean > 0 else BEHIND


def _sizes(results: Sequence[Result], known: Known) -> list[str]:
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


def _beside_the_whole(results: Sequence[Result], known: Known) -> list[str]:
    """What a smaller network of the search gives up."""
    whole = known.get((WHOLE, "whole", "family"))
    if whole is None:
        return []
    said = []
    for one in results:
        if (one.method, one.rule) == REFERENCE:
            difference = paired_difference(one.by_seed, whole.by_seed)
            if difference.pairs >= LEAST_PAIRS:
                said.append(f"{signed(difference)} at {one.budget}")
    if not said:
        return []
    return [
        f"- The whole network has {accuracy_of(whole)} after {whole.epochs.removeprefix('0 + ')} epochs. DAC, with as "
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
                f"{signed(difference)} in {limit:.2f} ms ({other.budget} of the "
                f"MACs scaled, {one.budget} found, which takes {one.costs['milliseconds']:.2f})"
            )
    if not said:
        return []
    return [
        f"- At equal measured latency (one image, ONNX Runtime, float32, one thread, {', '.join(sorted(where))}), the "
        f"largest networks that take no longer, DAC minus uniform scaling (family) is {'; '.join(said)}. Both have "
        "widths that are no multiples of 8, which this runtime is slow with."
    ]
