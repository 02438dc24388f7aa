"""The reports of `feddac search` and `feddac train`: pages of their own kind, without devices and rounds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jinja2

from common import wording
from common.bounds import BOUND_KEYS
from common.budget import USUAL_TRAINING
from common.wording import count, number_of, size
from server.json_files import read_json
from server.report import figures
from server.report.drawing import marks_of, new_axes, percent_axis, report_style, to_svg
from server.report.page import STYLE
from server.report.record import Cohort, Run, read_channels, read_run, series
from server.run_folder import RunFolder

KINDS = {"search": "FedDAC search report", "train": "FedDAC training report"}

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ title }}: {{ data | printable(80) }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">{{ title }}</p>
<h1>{{ headline }}</h1>
<p class="lede">{{ lede }}</p>
{% if not finished %}
<p class="banner"><strong>This did not finish.</strong> Continue with
<code>feddac {{ kind }} --resume FOLDER</code>.</p>
{% endif %}
</header>
{% if rows %}
<section>
<h2>{{ "Architectures" if kind == "search" else "The network" }}</h2>
<p class="about">Costs are exact for one image. Validation images choose; test images choose nothing.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Architectures"><table>
<thead><tr><th class="text">Name</th><th>MACs</th><th>Parameters</th><th>Peak memory</th><th>Validation</th>
{% if kind == "train" %}<th>Test accuracy</th>{% endif %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="text"><span class="cohort">{{ row.name | printable(60) }}</span></td>
{% for figure in row.figures %}
<td class="number">{{ figure.used }}
{% if figure.bound %}<div class="names">below {{ figure.bound }}</div>{% endif %}</td>
{% endfor %}
<td class="number">{{ row.validation | percent }}</td>
{% if kind == "train" %}<td class="number">{{ test | percent }}</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
</section>
{% endif %}
{% for heading, about, columns, panels in sections %}
{% if panels %}
<section>
<h2>{{ heading }}</h2>
<p class="about">{{ about }}</p>
<div class="panels {{ columns }}">
{% for panel in panels %}<div class="figure"{% if columns == "one" %} tabindex="0" role="group" \
aria-label="Figure"{% endif %}>{{ panel | safe }}</div>
{% endfor %}
</div>
</section>
{% endif %}
{% endfor %}
<section>
<h2>Reproduce it</h2>
<p class="about">In the folder, which holds every setting:</p>
<pre tabindex="0">feddac {{ kind }} {{ again }}--config config.toml --out again</pre>
<details><summary>All {{ config | length }} settings</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Settings"><table>
<thead><tr><th class="text">Setting</th><th class="text">Value</th></tr></thead>
<tbody>
{% for key, value in config.items() %}
<tr><td class="text"><code>{{ key }}</code></td><td class="text foreign">{{ value | printable(1000) }}</td></tr>
{% endfor %}
</tbody></table></div></details>
</section>
<footer>Made by FedDAC from the files of this folder; this page loads nothing from anywhere else.</footer>
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Figure:
    """What an architecture takes of one resource, and the bound it had to stay below, if it had one."""

    used: str
    bound: str


@dataclass(frozen=True)
class Row:
    """One architecture of the folder."""

    name: str
    figures: tuple[Figure, ...]
    validation: float


def render_alone(folder: RunFolder) -> str:
    """The page of a search or training folder; raises CheckpointError for a file that is damaged."""
    run, kind = read_run(folder), folder.kind
    files = {path.stem: read_json(path) for path in sorted(folder.architectures_folder.glob("*.json"))}
    test = number_of(folder.read_summary().get("test_accuracy")) if folder.summary_path.exists() else math.nan
    run = replace(run, cohorts=tuple(_cohort(name, data) for name, data in files.items()))
    run = replace(run, channels=read_channels(folder, run.cohorts))
    marks = marks_of(files)
    with report_style():
        channels = figures.channel_panels(run, marks)
        found = figures.search_panels(run, marks)
        learned = _training_panels(folder)
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": PAGE}), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": wording.percent, "printable": wording.printable}
    return environment.get_template("page").render(
        kind=kind,
        title=KINDS[kind],
        headline=_headline(kind, run, files, test),
        lede=_lede(kind, run, folder),
        data=run.data,
        finished=bool(files),
        rows=[_row(name, data) for name, data in files.items()],
        test=test,
        sections=[
            ("The search", "The base network shrinks while it trains.", "three", found),
            ("Learning, epoch by epoch", "Solid: training images. Dashed: validation images.", "two", learned),
            ("What each architecture keeps", "Channels that are left of the base network's.", "one", channels),
        ],
        config=run.config,
        again=_network_flags(folder) if kind == "train" else _budget_flags(folder),
        style=STYLE,
    )


def _headline(kind: str, run: Run, files: Mapping[str, Any], test: float) -> str:
    if kind == "train" and math.isfinite(test):
        return f"{wording.percent(test)} accuracy on {wording.printable(run.data, 80)}"
    return f"{wording.plural(len(files), 'architecture')} for {wording.printable(run.data, 80)}"


def _lede(kind: str, run: Run, folder: RunFolder) -> str:
    if kind == "search":
        return f"One nested family, {wording.plural(len(run.search_events), 'epoch')} of search."
    return f"{wording.plural(len(folder.events('train')), 'epoch')} of training, tested once at the end."


def _network_flags(folder: RunFolder) -> str:
    """What a training began with: its network, and the network that taught it if one did."""
    taught = (folder.checkpoint_folder / "teacher.json").exists()
    return "checkpoint/start.json " + ("--teacher checkpoint/teacher.json " if taught else "")


def _budget_flags(folder: RunFolder) -> str:
    """The flags that ask for the budgets of the folder; a file is needed where they bound different resources."""
    budgets = [entry.budget for entry in folder.read_budgets()]
    flags = ""
    if any(budget.latency is not None or budget.training != USUAL_TRAINING for budget in budgets):
        return "--budgets FILE "
    for flag, (key, _) in BOUND_KEYS.items():
        bounds = [getattr(budget, key) for budget in budgets]
        if all(bound is not None for bound in bounds):
            flags += f"--max-{flag} {','.join(map(str, bounds))} "
        elif any(bound is not None for bound in bounds):
            return "--budgets FILE "
    return flags


def _cohort(name: str, data: Mapping[str, Any]) -> Cohort:
    costs = data.get("costs") or {}
    macs, params, memory = (number_of(costs.get(key)) for key in ("macs", "params", "peak_memory_bytes"))
    validation = number_of(data.get("validation_accuracy"))
    return Cohort(name, 0, macs, params, memory, math.nan, validation, math.nan, math.nan, math.nan)


def _row(name: str, data: Mapping[str, Any]) -> Row:
    costs, budget = data.get("costs") or {}, data.get("budget") or {}
    resources = (("macs", count), ("params", count), ("peak_memory_bytes", size))
    cells = []
    for key, words in resources:
        bound = number_of(budget.get(key))
        cells.append(Figure(words(number_of(costs.get(key))), words(bound) if math.isfinite(bound) else ""))
    return Row(name, tuple(cells), number_of(data.get("validation_accuracy")))


def _training_panels(folder: RunFolder) -> list[str]:
    events = folder.events("train")
    if not events:
        return []
    epochs, loss, own, validation = series(events, "epoch", "train_loss", "train_accuracy", "validation_accuracy")
    figure, axes = new_axes(*figures.HALF, "Accuracy")
    axes.plot(epochs, own, color="#0072B2")
    axes.plot(epochs, validation, color="#0072B2", linestyle=(0, (4, 2)))
    percent_axis(axes)
    axes.set_xlabel("epoch")
    panels = [to_svg(figure, "train-accuracy", "Accuracy on training and validation images after each epoch")]
    figure, axes = new_axes(*figures.HALF, "Training loss")
    axes.plot(epochs, loss, color="#0072B2")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    return [*panels, to_svg(figure, "train-loss", "Training loss after each epoch")]
