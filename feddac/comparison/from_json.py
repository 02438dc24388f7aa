"""The inverse of comparison.json: a comparison without its run folders, to draw its tables and plots again."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import CheckpointError
from feddac.comparison.collect import CellResult, Outcome, cell_result
from feddac.comparison.plan import Cell, Experiment
from server.json_files import read_json
from server.report.progress import Point


def read_comparison(path: Path) -> tuple[Experiment, list[CellResult]]:
    """The experiment, without the plan of its runs, and the results in a comparison.json.

    Only what each run achieved is read; means, deviations, tests and curves are computed from it anew, as after the
    runs themselves. Raises CheckpointError if the file is missing, or no comparison of this version.
    """
    try:
        return _comparison(read_json(path))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no comparison.json of this version of FedDAC ({error})") from error


def _comparison(content: Mapping[str, Any]) -> tuple[Experiment, list[CellResult]]:
    cells = tuple(Cell(one["cell"], one["labels"]) for one in content["cells"])
    target = content["target"]
    experiment = Experiment(
        content["title"], tuple(content["seeds"]), content["baseline"], content["methods"], cells, (), target
    )
    results = []
    for cell, one in zip(cells, content["cells"], strict=True):
        outcomes = {method["method"]: [_outcome(run) for run in method["runs"]] for method in one["methods"]}
        devices = {method["method"]: int(method["devices"]) for method in one["methods"]}
        results.append(cell_result(cell, outcomes, devices, experiment.baseline, target))
    return experiment, results


def _outcome(run: Mapping[str, Any]) -> Outcome:
    """The run that `dataclasses.asdict` made this of."""
    facts = {name: _value(value) for name, value in run.items()}
    points = tuple(Point(**{name: _value(value) for name, value in point.items()}) for point in run["progress"])
    return Outcome(**{**facts, "progress": points})


def _value(value: Any) -> Any:
    """Null was not a number, and lists were tuples."""
    if isinstance(value, list):
        return tuple(_value(one) for one in value)
    return math.nan if value is None else value
