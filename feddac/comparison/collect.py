"""From run folders to numbers: what each run achieved and cost, and per cell and method the spread over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.wording import number_of
from feddac.comparison.holm import corrected
from feddac.comparison.late import late_accuracy
from feddac.comparison.plan import Cell, Experiment, PlannedRun
from feddac.comparison.sharing import search_key
from feddac.comparison.statistics import Difference, Spread, paired_difference, spread
from feddac.comparison.unserved import Fleet
from server.report.progress import Point, progress_of, reached
from server.run_folder import RunFolder

MEASURES = (
    "accuracy",
    "fleet_accuracy",
    "late_accuracy",
    "worst_accuracy",
    "macs",
    "params",
    "peak_memory_bytes",
    "device_macs_per_round",
    "bytes_down",
    "bytes_up",
    "bytes",
    "simulated_seconds",
    "server_seconds",
    "server_bytes",
    "epochs_on_reference",
    "seconds",
    "over_budget",
    "devices_served",
)
"""What is averaged over seeds: fields of Outcome."""

TO_TARGET = ("round", "simulated_seconds", "bytes", "device_macs")
"""What is averaged over seeds of the point at which a run first reached the target: fields of Point."""


@dataclass(frozen=True)
class Outcome:
    """One finished run. Accuracies are of the test set, 0 to 1; costs are means over the devices that are served.

    `accuracy` is that of the served devices; `fleet_accuracy`, `late_accuracy` (mean of the last 20 % of rounds),
    `worst_accuracy` and those of `progress`, which is what each evaluated round had cost, are of all: one that is left
    without a model guesses. `cohort_accuracies` are those of each cohort with devices, largest architecture first.
    `macs_range` is over devices. `device_macs_per_round`, bytes and what the server spent are those of summary.json;
    both kinds of seconds include a search that was done by another run of the comparison. `over_budget` devices had to
    hold more than they can.
    """

    seed: int
    folder: str
    accuracy: float
    fleet_accuracy: float
    late_accuracy: float
    worst_accuracy: float
    cohort_accuracies: tuple[float, ...]
    cohort_devices: tuple[int, ...]
    macs: float
    macs_range: tuple[float, float]
    params: float
    peak_memory_bytes: float
    device_macs_per_round: float
    bytes_down: float
    bytes_up: float
    bytes: float
    simulated_seconds: float
    server_seconds: float
    server_bytes: float
    epochs_on_reference: float
    seconds: float
    over_budget: float
    devices_served: float
    progress: tuple[Point, ...]


@dataclass(frozen=True)
class MethodResult:
    """A method in one cell: its finished runs and their spread; `difference` is None for the baseline itself.

    What is compared with the baseline in one cell is the family that p values are corrected for. `to_target` is the
    spread of TO_TARGET, NaN where a run did not get there; `curve` is (round, mean accuracy, deviation, mean simulated
    seconds) over the seeds.
    """

    name: str
    devices: int
    outcomes: tuple[Outcome, ...]
    spreads: Mapping[str, Spread]
    ranks: tuple[Spread, ...]
    macs_range: tuple[float, float]
    curve: tuple[tuple[int, float, float, float], ...]
    to_target: Mapping[str, Spread]
    difference: Difference | None


@dataclass(frozen=True)
class CellResult:
    """All methods in one cell, in the order of the experiment, and the accuracy that costs are compared at."""

    cell: Cell
    methods: tuple[MethodResult, ...]
    target: float = math.nan


def collect(experiment: Experiment, out: Path) -> list[CellResult]:
    """The results of all runs below `out` that are finished; raises CheckpointError for a damaged run folder."""
    finished = [run for run in experiment.runs if RunFolder(out / run.folder).summary_path.exists()]
    summaries = {run.folder: RunFolder(out / run.folder).read_summary() for run in finished}
    searches = _search_seconds(finished, summaries)
    results = []
    for cell in experiment.cells:
        outcomes = {
            name: [
                read_outcome(run, out, summaries[run.folder], searches.get(search_key(run.config), 0.0))
                for run in finished
                if (run.cell, run.method) == (cell.name, name)
            ]
            for name in experiment.methods
        }
        devices = {run.method: run.config.fleet.devices for run in experiment.runs if run.cell == cell.name}
        results.append(cell_result(cell, outcomes, devices, experiment.baseline, experiment.target))
    return results


def cell_result(
    cell: Cell,
    outcomes: Mapping[str, Sequence[Outcome]],
    devices: Mapping[str, int],
    baseline: str,
    target: float | None,
) -> CellResult:
    """The methods of one cell beside each other, from their finished runs and the number of devices of each.

    Costs are compared at the accuracy `target`, or at the highest that every run had at some time.
    """
    at = _highest_of_all(outcomes) if target is None else target
    differences = _differences(outcomes, baseline)
    methods = [_method_result(name, devices[name], runs, differences.get(name), at) for name, runs in outcomes.items()]
    return CellResult(cell, tuple(methods), at)


def read_outcome(run: PlannedRun, out: Path, summary: Mapping[str, Any], search_seconds: float) -> Outcome:
    """What a finished run achieved; its search took `search_seconds`, wherever it was done."""
    cohorts = [one for one in summary["cohorts"] if number_of(one.get("devices")) > 0]
    cohorts.sort(key=lambda one: -number_of(one.get("macs")))
    devices = [int(one["devices"]) for one in cohorts]
    accuracies = [number_of(one.get("test_accuracy")) for one in cohorts]
    macs = [number_of(one.get("macs")) for one in cohorts]
    own_search = number_of(summary.get("stages", {}).get("search", 0.0))
    events = RunFolder(out / run.folder).events()
    by_cohort = {str(one["cohort"]): int(one["devices"]) for one in cohorts}
    steps, evaluations = ([one for one in events if one["event"] == kind] for kind in ("step", "evaluation"))
    fleet = Fleet.of(run.config.fleet.devices, sum(devices), events)
    progress = fleet.progress(progress_of(steps, evaluations, by_cohort))
    down, up = number_of(summary.get("bytes_down")), number_of(summary.get("bytes_up"))
    return Outcome(
        seed=run.seed,
        folder=run.folder.as_posix(),
        accuracy=number_of(summary.get("test_accuracy")),
        fleet_accuracy=fleet.over_all(number_of(summary.get("test_accuracy"))),
        late_accuracy=late_accuracy(progress),
        worst_accuracy=fleet.worst(accuracies),
        cohort_accuracies=tuple(accuracies),
        cohort_devices=tuple(devices),
        macs=_weighted(macs, devices),
        macs_range=(min(macs, default=math.nan), max(macs, default=math.nan)),
        params=_weighted([number_of(one.get("params")) for one in cohorts], devices),
        peak_memory_bytes=_weighted([number_of(one.get("peak_memory_bytes")) for one in cohorts], devices),
        device_macs_per_round=number_of(summary.get("device_macs_per_round")),
        bytes_down=down,
        bytes_up=up,
        bytes=down + up,
        simulated_seconds=number_of(summary.get("simulated_seconds")),
        server_seconds=number_of(summary.get("server_seconds")) + max(0.0, search_seconds - own_search),
        server_bytes=number_of(summary.get("server_bytes")),
        epochs_on_reference=number_of(summary.get("epochs_on_reference")),
        seconds=number_of(summary.get("seconds_total")) + max(0.0, search_seconds - own_search),
        over_budget=sum(number_of(one.get("over_budget", 0)) for one in cohorts),
        devices_served=float(sum(devices)),
        progress=progress,
    )


def _differences(outcomes: Mapping[str, Sequence[Outcome]], baseline: str) -> dict[str, Difference]:
    """Of every other method to the baseline, with p corrected for how many methods are compared with it here."""
    by_seed = {name: {one.seed: one.fleet_accuracy for one in runs} for name, runs in outcomes.items()}
    alone = {name: paired_difference(by_seed[name], by_seed[baseline]) for name in outcomes if name != baseline}
    family = corrected([one.p for one in alone.values()])
    return {name: replace(one, corrected_p=p) for (name, one), p in zip(alone.items(), family, strict=True)}


def _highest_of_all(outcomes: Mapping[str, Sequence[Outcome]]) -> float:
    """The highest accuracy that every run had at some time; NaN where none is finished."""
    finished = [one for runs in outcomes.values() for one in runs if one.progress]
    return min((max(point.accuracy for point in one.progress) for one in finished), default=math.nan)


def _to_target(outcomes: Sequence[Outcome], measure: str, target: float) -> Spread:
    """Of all seeds, or of none if one never got there: the others would be the lucky ones."""
    points = [reached(one.progress, target) for one in outcomes]
    return spread([] if None in points else [float(getattr(point, measure)) for point in points])


def _method_result(
    name: str, devices: int, outcomes: Sequence[Outcome], difference: Difference | None, target: float
) -> MethodResult:
    ranks = max((len(one.cohort_accuracies) for one in outcomes), default=0)
    return MethodResult(
        name=name,
        devices=devices,
        outcomes=tuple(outcomes),
        spreads={measure: spread([getattr(one, measure) for one in outcomes]) for measure in MEASURES},
        ranks=tuple(
            spread([one.cohort_accuracies[rank] for one in outcomes if rank < len(one.cohort_accuracies)])
            for rank in range(ranks)
        ),
        macs_range=(
            min((one.macs_range[0] for one in outcomes), default=math.nan),
            max((one.macs_range[1] for one in outcomes), default=math.nan),
        ),
        curve=_mean_curve([one.progress for one in outcomes]),
        to_target={measure: _to_target(outcomes, measure, target) for measure in TO_TARGET},
        difference=difference,
    )


def _mean_curve(curves: Sequence[Sequence[Point]]) -> tuple[tuple[int, float, float, float], ...]:
    """(round, mean, deviation, mean simulated seconds) over the seeds, of the rounds that all seeds evaluated."""
    known = [{point.round: point for point in curve} for curve in curves]
    if not known:
        return ()
    rounds = sorted(set.intersection(*(set(curve) for curve in known)))
    spreads = [spread([curve[n].accuracy for curve in known]) for n in rounds]
    seconds = [spread([curve[n].simulated_seconds for curve in known]).mean for n in rounds]
    return tuple((n, one.mean, one.deviation, took) for n, one, took in zip(rounds, spreads, seconds, strict=True))


def _search_seconds(runs: Iterable[PlannedRun], summaries: Mapping[Path, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of each search: one run did it, and those that took it over spent next to nothing."""
    seconds: dict[str, float] = {}
    for run in runs:
        key = search_key(run.config)
        own = number_of(summaries[run.folder].get("stages", {}).get("search", 0.0))
        if key and math.isfinite(own):
            seconds[key] = max(seconds.get(key, 0.0), own)
    return seconds


def _weighted(values: Sequence[float], weights: Sequence[int]) -> float:
    total = sum(weights)
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / total if total else math.nan
