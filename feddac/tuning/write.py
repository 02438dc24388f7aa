"""The files of a tuning: every trial as a line, and the experiment with the settings that were chosen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from common.atomic import write_atomically
from common.config import Config
from common.fleet import is_fleet_file
from common.presets import without_preset
from common.wording import percent, plain, printable
from feddac.comparison.plan import FILE_SETTINGS, beside, label_of
from feddac.resolve import with_absolute_paths
from feddac.tuning.plan import Tuning
from feddac.tuning.study import RANDOM_TRIALS, SPARED_TRIALS
from feddac.tuning.trials import Choice

TUNED, TRIALS = "tuned.toml", "trials.jsonl"
FILES = (*FILE_SETTINGS, "data-folder")
"""Settings that may name a file of the user's, who may call `feddac compare` from another folder."""


def write_trials(choices: Sequence[Choice], out: Path) -> Path:
    """Write a line for each trial of each method, and return the file's path."""
    path = out / TRIALS
    lines = [json.dumps(trial.to_json(), allow_nan=False) for choice in choices for trial in choice.trials]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    return path


def write_tuned(tuning: Tuning, choices: Sequence[Choice], command: str, out: Path) -> Path:
    """Write the experiment with every method's chosen settings, ready for `feddac compare`, and return its path."""
    path = out / TUNED
    comment = "".join(f"# {printable(line, 1000)}".rstrip() + "\n" for line in _how(tuning, choices, command))
    write_atomically(path, f"{comment}\n{tomli_w.dumps(_content(tuning, choices))}".encode())
    return path


def _how(tuning: Tuning, choices: Sequence[Choice], command: str) -> list[str]:
    """How the settings were found, line by line."""
    cells = len(tuning.experiment.cells)
    over = f", as the mean over the {cells} settings of the grid" if cells > 1 else ""
    lines = [
        f"Settings chosen by `feddac tune` in the same way for every method: {len(choices[0].trials)} trials of each,",
        f"on seed {tuning.seed}, which is none of those below. The first trial has the experiment's own settings, TPE",
        f"draws the others (it learns from those before once there are {RANDOM_TRIALS}), and a median pruner ends what",
        f"falls behind once {SPARED_TRIALS} trials of the method are complete.",
        "A trial's score is the accuracy on the server's validation images after the last round, as the mean over all",
        f"devices (one without a model guesses){over}. The test set was not looked at.",
        "",
        f"  {command}",
        "",
    ]
    for choice, method in zip(choices, tuning.methods, strict=True):
        best = choice.best
        assert best is not None  # nothing is written otherwise
        lines.append(
            f"{choice.method}: trial {best.number} of 0 to {len(choice.trials) - 1} ({choice.count('pruned')} pruned, "
            f"{choice.count('failed')} failed), validation accuracy {_percent(choice.accuracy)}; with the experiment's "
            f"own settings {_percent(choice.own_accuracy)}"
        )
        lines += [f"  {key}: {one}" for key, one in method.ranges.items()]
    return lines


def _content(tuning: Tuning, choices: Sequence[Choice]) -> dict[str, Any]:
    """The experiment's tables with what was chosen, without [tune], and with the files they name by absolute paths."""
    given, folder = tuning.content, tuning.path.parent
    settings = {**without_preset(given.get("settings", {})), **without_preset(tuning.flags)}
    found: dict[str, Any] = {key: given[key] for key in ("title", "baseline", "target") if key in given}
    found |= {"title": tuning.experiment.title, "seeds": list(tuning.experiment.seeds)}
    found["settings"] = _with_absolute_files(settings, folder)
    if given.get("grid"):
        grids = given["grid"] if isinstance(given["grid"], list) else [given["grid"]]
        found["grid"] = [{axis: _axis(axis, values, folder) for axis, values in one.items()} for one in grids]
    found["methods"] = {}
    unused = set(settings)
    for choice, method in zip(choices, tuning.methods, strict=True):
        assert choice.best is not None
        own = _with_absolute_files(without_preset(given["methods"][choice.method]), folder)
        idle = method.idle(choice.best.settings)  # beside what was chosen; a comparison would refuse them
        kept = {key: value for key, value in own.items() if key not in idle}
        found["methods"][choice.method] = {**kept, **choice.best.settings}
        unused -= {key for key in settings if method.reads(key)} - idle
    for key in unused:
        del found["settings"][key]
    return found


def _axis(axis: str, values: Sequence[Any], folder: Path) -> list[Any]:
    """The values of a grid's axis; those that name files keep the label that they had."""
    if all(isinstance(value, dict) for value in values):
        labelled = []
        for value in values:
            table = {key: one for key, one in value.items() if key != "label"}
            label = value.get("label", " ".join(label_of(one) for one in table.values()))
            labelled.append({"label": label, **_with_absolute_files(table, folder)})
        return labelled
    if axis in FILES:
        return [{"label": label_of(value), **_with_absolute_files({axis: value}, folder)} for value in values]
    return list(values)


def _with_absolute_files(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`settings`, with the files beside the experiment, or else in the working folder, by their absolute paths."""
    found = beside(dict(settings), folder)
    named = {key: found[key] for key in FILES if key in found and (key != "fleet" or is_fleet_file(str(found[key])))}
    absolute = with_absolute_paths(Config.from_mapping(named)).to_mapping() if named else {}
    return {**found, **{key: absolute[key] for key in named}}


def _percent(value: float) -> str:
    return plain(percent(value))
