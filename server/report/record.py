"""What a run folder says, gathered for the report; a run that was interrupted says less."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.wording import number_of
from server.budget_entries import BudgetEntry
from server.json_files import read_json
from server.report.interval import interval
from server.report.own_scores import OWN_EVENT, OwnScore, mean_own, on_devices, own_scores
from server.report.progress import Point, progress_of
from server.run_folder import RunFolder
from server.stages import seconds_by_stage

Event = Mapping[str, Any]
STAGES = ("handshake", "search", "rounds", "report")


@dataclass(frozen=True)
class Cohort:
    """One cohort's result; a number that was never recorded is NaN. Accuracies lie between 0 and 1.

    `test_accuracy` is on the server's test images after the last evaluated round, `accuracy_before` before the first,
    and `quality` what `server.quality` says beside it. `own_accuracy` is the mean of what its devices scored on images
    of their own; where they run another network than the one that is tested, `device_network_accuracy` is the test
    accuracy of theirs.
    """

    name: str
    devices: int
    macs: float
    params: float
    peak_memory_bytes: float
    test_accuracy: float
    validation_accuracy: float
    device_macs_per_round: float
    bytes_down: float
    bytes_up: float
    accuracy_before: float = math.nan
    profiles: tuple[str, ...] = ()
    class_accuracy: tuple[float, ...] = ()
    quality: Mapping[str, float] = field(default_factory=dict)
    own_accuracy: float = math.nan
    device_network_accuracy: float = math.nan

    @property
    def runs_another_network(self) -> bool:
        """Whether what is tested is more than its devices can run."""
        return math.isfinite(self.device_network_accuracy)

    @property
    def accuracy_on_devices(self) -> float:
        """Test accuracy of the network that its devices run."""
        return self.device_network_accuracy if self.runs_another_network else self.test_accuracy


@dataclass(frozen=True)
class Run:
    """A run as the report tells it. Events are in the order they were recorded.

    `channels` maps cohort and block to (kept, of the base); `stages` maps a stage to seconds. `partition` maps a device
    to how many images of each of `class_names` it has, `own` to what it scored on images of its own. `host` has
    versions, host and date as they were recorded last, `progress` what each evaluated round had cost.
    """

    config: Mapping[str, Any]
    finished: bool
    data: str
    method: str
    rounds: int
    devices: int
    test_accuracy: float
    seconds_total: float
    device_macs_per_round: float
    bytes_down: float
    bytes_up: float
    server_seconds: float
    server_bytes: float
    epochs_on_reference: float
    peak_rss_bytes: float
    stages: Mapping[str, float]
    cohorts: tuple[Cohort, ...]
    budgets: tuple[BudgetEntry, ...]
    channels: Mapping[str, Mapping[str, tuple[int, int]]]
    search_events: tuple[Event, ...]
    round_events: tuple[Event, ...]
    step_events: tuple[Event, ...]
    evaluations: tuple[Event, ...]
    device_events: tuple[Event, ...]
    accuracy_before: float = math.nan
    test_images: float = math.nan
    class_names: tuple[str, ...] = ()
    partition: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    progress: tuple[Point, ...] = ()
    own: Mapping[str, OwnScore] = field(default_factory=dict)

    @property
    def own_accuracy(self) -> float:
        """The mean over the devices that hold images of their own out of training; NaN if none does."""
        return mean_own(self.own.values())

    @property
    def made_worse(self) -> bool:
        """Whether the rounds lowered the accuracy by more than the test images can tell by chance."""
        lowest, _ = interval(self.accuracy_before, self.test_images)
        return self.test_accuracy < lowest

    @property
    def troubles(self) -> tuple[Event, ...]:
        """The events of devices whose work did not count."""
        return tuple(event for event in self.device_events if event.get("status") != "trained")


def read_run(folder: RunFolder) -> Run:
    """Everything the report needs; raises CheckpointError for a file that is damaged, not for one that is missing."""
    config = folder.read_config()
    events = folder.events()
    by_name = {
        name: tuple(event for event in events if event["event"] == name)
        for name in ("run", "stage", "search", "architecture", "round", "step", "device", "evaluation", OWN_EVENT)
    }
    budgets = folder.read_budgets()
    summary = folder.read_summary() if folder.summary_path.exists() else {}
    rounds = by_name["round"]
    last = max((int(number_of(event.get("round"))) for event in rounds if "round" in event), default=0)
    own = own_scores(by_name[OWN_EVENT], last)
    cohorts = _cohorts(summary, by_name, budgets, own, on_devices(rounds, last))
    stages = _stages(summary, by_name["stage"])
    about = {**(by_name["run"][-1] if by_name["run"] else {}), **summary}
    return Run(
        config=config,
        finished=bool(summary),
        data=str(summary.get("data") or config.get("data", "")),
        method=str(summary.get("method") or "dac"),
        rounds=last,
        devices=sum(cohort.devices for cohort in cohorts),
        test_accuracy=_first(number_of(summary.get("test_accuracy")), _mean(cohorts, "test_accuracy")),
        seconds_total=_first(number_of(summary.get("seconds_total")), sum(stages.values()) or math.nan),
        device_macs_per_round=number_of(summary.get("device_macs_per_round")),
        bytes_down=_first(number_of(summary.get("bytes_down")), _total(by_name["step"], "bytes_down")),
        bytes_up=_first(number_of(summary.get("bytes_up")), _total(by_name["step"], "bytes_up")),
        server_seconds=number_of(summary.get("server_seconds")),
        server_bytes=number_of(summary.get("server_bytes")),
        epochs_on_reference=number_of(summary.get("epochs_on_reference")),
        peak_rss_bytes=_first(
            number_of(summary.get("peak_rss_bytes")),
            max((number_of(event.get("peak_rss_bytes")) for event in by_name["stage"]), default=math.nan),
        ),
        stages=stages,
        cohorts=cohorts,
        budgets=tuple(budgets),
        channels=read_channels(folder, cohorts),
        search_events=by_name["search"],
        round_events=rounds,
        step_events=by_name["step"],
        evaluations=by_name["evaluation"],
        device_events=by_name["device"],
        accuracy_before=_first(number_of(summary.get("accuracy_before")), _mean(cohorts, "accuracy_before")),
        test_images=number_of(about.get("test_images")),
        class_names=tuple(map(str, about.get("class_names") or ())),
        partition=_partition(folder),
        host={key: about[key] for key in ("versions", "host", "date") if key in about},
        progress=progress_of(
            by_name["step"], by_name["evaluation"], {one.name: one.devices for one in cohorts if one.devices}
        ),
        own=own,
    )


def of_cohort(events: Iterable[Event], cohort: str) -> list[Event]:
    """The events of one cohort."""
    return [event for event in events if event.get("cohort") == cohort]


def series(events: Iterable[Event], *keys: str) -> tuple[list[float], ...]:
    """One list of numbers per key, NaN where an event has none."""
    kept = list(events)
    return tuple([number_of(event.get(key)) for event in kept] for key in keys)


def _cohorts(
    summary: Mapping[str, Any],
    events: Mapping[str, tuple[Event, ...]],
    budgets: list[BudgetEntry],
    own: Mapping[str, OwnScore],
    on_device: Mapping[str, float],
) -> tuple[Cohort, ...]:
    """The summary's cohorts; what it lacks comes from the events, latest first."""
    entries = {str(entry["cohort"]): entry for entry in summary.get("cohorts", []) if "cohort" in entry}
    named = [event for name in ("architecture", "round", "evaluation") for event in events[name]]
    names = {*entries, *(str(event["cohort"]) for event in named if "cohort" in event)}
    cohorts = []
    for name in sorted(names, key=_natural_order):
        found = of_cohort(events["architecture"], name)
        evaluated = of_cohort(events["evaluation"], name)
        steps = of_cohort(events["step"], name)
        # Later mappings win: the summary over the last evaluation over the search.
        known: dict[str, Any] = {}
        for source in (*found[-1:], *evaluated[-1:], entries.get(name, {})):
            known |= {key: value for key, value in source.items() if value is not None}
        devices = number_of(known.get("devices"))
        if not math.isfinite(devices):
            devices = sum(entry.cohort == name for entry in budgets)
        cohorts.append(
            Cohort(
                name=name,
                devices=int(devices),
                macs=number_of(known.get("macs")),
                params=number_of(known.get("params")),
                peak_memory_bytes=number_of(known.get("peak_memory_bytes")),
                test_accuracy=number_of(known.get("test_accuracy")),
                validation_accuracy=number_of(known.get("validation_accuracy")),
                device_macs_per_round=number_of(known.get("device_macs_per_round")),
                bytes_down=_first(number_of(known.get("bytes_down")), _total(steps, "bytes_down")),
                bytes_up=_first(number_of(known.get("bytes_up")), _total(steps, "bytes_up")),
                accuracy_before=next(
                    (number_of(one.get("test_accuracy")) for one in evaluated if one.get("round") == 0), math.nan
                ),
                profiles=tuple(
                    dict.fromkeys(entry.profile for entry in budgets if entry.cohort == name and entry.profile)
                ),
                class_accuracy=tuple(map(number_of, (summary.get("class_accuracy") or {}).get(name, ()))),
                quality={key: number_of(one) for key, one in ((summary.get("quality") or {}).get(name) or {}).items()},
                own_accuracy=mean_own(score for score in own.values() if score.cohort == name),
                device_network_accuracy=on_device.get(name, math.nan),
            )
        )
    return tuple(cohorts)


def _stages(summary: Mapping[str, Any], events: Iterable[Event]) -> dict[str, float]:
    """Seconds per stage in order; a stage that was resumed counts all its parts."""
    seconds = seconds_by_stage(events)
    for name, recorded in summary.get("stages", {}).items():
        value = number_of(recorded)
        if math.isfinite(value):
            seconds[name] = value
    return {name: seconds[name] for name in sorted(seconds, key=_stage_order)}


def _stage_order(name: str) -> tuple[int, str]:
    return (STAGES.index(name) if name in STAGES else len(STAGES), name)


def read_channels(folder: RunFolder, cohorts: Iterable[Cohort]) -> dict[str, dict[str, tuple[int, int]]]:
    """Kept and base channels per cohort and channel group, of the groups where some cohort keeps less than all.

    A block that may vanish counts as a group of one.
    """
    every: dict[str, dict[str, tuple[int, int]]] = {}
    for cohort in cohorts:
        path = folder.architecture_path(cohort.name)
        data = read_json(path) if path.exists() else None
        if not isinstance(data, dict) or not isinstance(data.get("base_sizes"), dict):
            continue
        sizes, kept = data.get("sizes") or {}, data.get("kept") or {}
        groups = {}
        for group, whole in data["base_sizes"].items():
            size = sizes.get(group, _count_ranges(kept[group]) if group in kept else whole)
            groups[str(group)] = (int(size), int(whole))
        every[cohort.name] = groups
    reduced = {group for groups in every.values() for group, (size, whole) in groups.items() if size < whole}
    return {
        name: {group: value for group, value in groups.items() if group in reduced} for name, groups in every.items()
    }


def _count_ranges(ranges: str) -> int:
    """How many indices "0-3,7" holds: 5."""
    bounds = [re.fullmatch(r"(\d+)(?:-(\d+))?", part) for part in str(ranges).split(",")]
    return sum(int(match[2] or match[1]) - int(match[1]) + 1 for match in bounds if match)


def _mean(cohorts: Iterable[Cohort], figure: str) -> float:
    """Over devices, of a figure of their cohort."""
    known = [cohort for cohort in cohorts if math.isfinite(getattr(cohort, figure)) and cohort.devices]
    devices = sum(cohort.devices for cohort in known)
    return sum(getattr(cohort, figure) * cohort.devices for cohort in known) / devices if devices else math.nan


def _partition(folder: RunFolder) -> dict[str, tuple[int, ...]]:
    data = read_json(folder.partition_path) if folder.partition_path.exists() else {}
    counts = data.get("counts") if isinstance(data, dict) else None
    return {str(name): tuple(map(int, row)) for name, row in counts.items()} if isinstance(counts, dict) else {}


def _total(events: Iterable[Event], key: str) -> float:
    return sum(value for value in series(events, key)[0] if math.isfinite(value))


def _first(*values: float) -> float:
    """The first value that is a number."""
    return next((value for value in values if math.isfinite(value)), math.nan)


def _natural_order(name: str) -> list[tuple[int, str]]:
    """cohort-2 before cohort-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
