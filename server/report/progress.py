"""How far a run was at what cost: accuracy over rounds, simulated time, bytes and the devices' multiply-accumulates."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from common.methods.evaluation import EVALUATE
from common.wording import number_of

Event: TypeAlias = Mapping[str, Any]
EVERY_POINTS = 10
"""Milestones are every ten percentage points of accuracy."""


@dataclass(frozen=True)
class Point:
    """A run after an evaluated round: mean accuracy over devices (0 to 1), and all it had cost until then.

    `simulated_seconds` are those of `common.simulated_time`, NaN where a round did not record them; `bytes` count both
    directions, `device_macs` are those of all devices together, evaluation left out.
    """

    round: int
    accuracy: float
    simulated_seconds: float
    bytes: float
    device_macs: float


def progress_of(steps: Iterable[Event], evaluations: Iterable[Event], devices: Mapping[str, int]) -> tuple[Point, ...]:
    """One point for each round after which every cohort that there was then was evaluated; the mean is over these.

    `devices` are how many each cohort has; one that has come late is expected since its first step or evaluation, and
    one without any always. `steps` and `evaluations` are events of these names.
    """
    steps, evaluations = list(steps), list(evaluations)
    spent, since = _spent(steps), dict.fromkeys(devices, math.inf)
    for event in (*steps, *evaluations):
        if event.get("cohort") in devices:
            since[str(event["cohort"])] = min(since[str(event["cohort"])], int(event["round"]))
    found: dict[int, dict[str, float]] = {}
    for event in evaluations:
        accuracy = number_of(event.get("test_accuracy"))
        if event.get("cohort") in devices and math.isfinite(accuracy):
            found.setdefault(int(event["round"]), {})[str(event["cohort"])] = accuracy
    points = []
    for number, by_cohort in sorted(found.items()):
        there = {name for name, first in since.items() if first <= number or math.isinf(first)}
        total = sum(devices[cohort] for cohort in there)
        if there == by_cohort.keys() and total:
            mean = sum(by_cohort[cohort] * count for cohort, count in devices.items() if cohort in there) / total
            until = [cost for earlier, cost in spent.items() if earlier <= number]
            points.append(Point(number, mean, *(sum(one[place] for one in until) for place in range(3))))
    return tuple(points)


def reached(points: Sequence[Point], accuracy: float) -> Point | None:
    """The first point of at least this accuracy; None if there is none."""
    return next((point for point in points if point.accuracy >= accuracy), None)


def milestones(points: Sequence[Point]) -> list[dict[str, Any]]:
    """For every ten per cent of accuracy that the run learned to reach, what it had cost when it first did.

    Ready for JSON; accuracies that it had before the first round are left out.
    """
    if not points:
        return []
    best, first = (max(point.accuracy for point in points), points[0])
    start = first.accuracy if first.round == 0 else 0.0
    targets = [one / 100 for one in range(EVERY_POINTS, 101, EVERY_POINTS) if start < one / 100 <= best]
    found = [(target, reached(points, target)) for target in targets]
    return [{**asdict(point), "target": target} for target, point in found if point is not None]


def _spent(steps: Iterable[Event]) -> dict[int, tuple[float, float, float]]:
    """Simulated seconds, bytes and device MACs of each round.

    All cohorts train at the same time, and are then evaluated at the same time.
    """
    seconds: dict[tuple[int, bool], float] = {}
    moved: dict[int, float] = {}
    macs: dict[int, float] = {}
    for event in steps:
        number, evaluates = int(event["round"]), event.get("step") == EVALUATE
        took = number_of(event.get("simulated_seconds"))
        before = seconds.get((number, evaluates), 0.0)
        seconds[number, evaluates] = took if math.isnan(took) or took > before else before
        moved[number] = moved.get(number, 0.0) + _known(event, "bytes_down") + _known(event, "bytes_up")
        macs[number] = macs.get(number, 0.0) + (0.0 if evaluates else _known(event, "device_macs"))
    return {
        number: (sum(took for (one, _), took in seconds.items() if one == number), moved[number], macs[number])
        for number in moved
    }


def _known(event: Event, key: str) -> float:
    value = number_of(event.get(key))
    return value if math.isfinite(value) else 0.0
