"""comparison.json: all numbers of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from feddac.comparison.collect import CellResult, MethodResult
from feddac.comparison.plan import Experiment
from feddac.comparison.statistics import Difference, Spread


def to_json(experiment: Experiment, results: Sequence[CellResult], failed: Mapping[str, str]) -> dict[str, Any]:
    """All numbers, ready for comparison.json; `failed` maps a run's folder to the reason."""
    return {
        "title": experiment.title,
        "seeds": list(experiment.seeds),
        "baseline": experiment.baseline,
        "target": experiment.target,
        "methods": {name: dict(settings) for name, settings in experiment.methods.items()},
        "cells": [
            {
                "cell": one.cell.name,
                "labels": dict(one.cell.labels),
                "target": one.target,
                "methods": [_method_json(m) for m in one.methods],
            }
            for one in results
        ],
        "failed": dict(failed),
    }


def _method_json(result: MethodResult) -> dict[str, Any]:
    return {
        "method": result.name,
        "devices": result.devices,
        "seeds": [one.seed for one in result.outcomes],
        **{measure: _spread_json(value) for measure, value in result.spreads.items()},
        "cohort_accuracies": [_spread_json(value) for value in result.ranks],
        "macs_range": list(result.macs_range),
        "difference": None if result.difference is None else _difference_json(result.difference),
        "to_target": {measure: _spread_json(value) for measure, value in result.to_target.items()},
        "curve": [
            {"round": n, "mean": mean, "deviation": deviation, "simulated_seconds": seconds}
            for n, mean, deviation, seconds in result.curve
        ],
        "runs": [asdict(one) for one in result.outcomes],
    }


def _spread_json(value: Spread) -> dict[str, Any]:
    return {"mean": value.mean, "deviation": value.deviation, "count": value.count}


def _difference_json(value: Difference) -> dict[str, Any]:
    return {
        "mean": value.mean,
        "confidence_95": [value.mean - value.half_width, value.mean + value.half_width],
        "p": value.p,
        "p_holm": value.corrected_p,
        "effect_size": value.effect,
        "pairs": value.pairs,
    }
