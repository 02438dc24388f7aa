"""Build report.html from a run folder."""

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from common import wording
from common.atomic import write_atomically
from common.config import Config
from common.wording import count, number_of, printable, size
from server.budget_entries import BudgetEntry
from server.damage import values_as_written
from server.report import figures, outcomes, pace, timeline
from server.report.alone import render_alone
from server.report.drawing import marks_of, report_style
from server.report.interval import interval
from server.report.page import SCRIPT, STYLE, TEMPLATE
from server.report.partition import heat_map
from server.report.progress import milestones
from server.report.record import Cohort, Run, read_run
from server.report.sections import SECTIONS
from server.run_folder import RunFolder

RESOURCES = (("macs", "MACs", count), ("params", "Parameters", count), ("peak_memory_bytes", "Peak memory", size))
OF_THE_DEVICE = ("Training memory", "Latency")
MOST_TROUBLES = 200


@dataclass(frozen=True)
class Use:
    """What an architecture takes of one bound: `share` is 1 at the bound, which it must stay below.

    `bound` is "" where there is none, and `share` NaN there and of a device that has no architecture.
    """

    used: str
    bound: str
    share: float

    @property
    def known(self) -> bool:
        """Whether it was counted: training memory and latency are only where they are bounded."""
        return bool(self.used)

    @property
    def within(self) -> bool:
        """Whether the use is below the bound, or there is none."""
        return not self.share >= 1


@dataclass(frozen=True)
class BudgetRow:
    """Devices of one cohort with the same bounds."""

    cohort: str
    devices: tuple[str, ...]
    profiles: str
    samples: int
    uses: tuple[Use, ...]


def build_report(folder: Path, live: bool = False) -> Path:
    """Write report.html into the folder of a run, a search or a training, and return its path.

    The page is one file without outside references, and the same bytes whenever it is built from the same folder.
    What an interrupted run did not record is left out. A `live` page says that the run goes on, and reloads itself.
    Raises CheckpointError if `folder` holds no run or a file of it
    is damaged.
    """
    run_folder = RunFolder.open(folder)
    with values_as_written(folder):
        if run_folder.kind == "simulate":
            page = render(read_run(run_folder), datetime.now().strftime("%H:%M:%S") if live else "")
        else:
            page = render_alone(run_folder)
    write_atomically(run_folder.report_path, page.encode())
    return run_folder.report_path


def render(run: Run, live_at: str = "") -> str:
    """The report of `run` as one HTML page; `live_at` is the time of a page of a run that goes on."""
    marks = marks_of(cohort.name for cohort in run.cohorts)
    with report_style():
        panels = {
            "accuracy": figures.accuracy_panels(run, marks),
            "cost": figures.cost_panels(run, marks),
            "channels": figures.channel_panels(run, marks),
            "search": figures.search_panels(run, marks),
            "traffic": figures.traffic_panels(run, marks),
            "pace": pace.pace_panels(run),
        }
    lanes, devices = timeline.timeline_of(run), outcomes.outcomes_of(run)
    resources, budgets = _budget_table(run)
    return _template().render(
        run=run,
        live_at=live_at,
        heat=heat_map(run),
        interval=interval,
        marks=marks,
        panels=panels,
        milestones=milestones(run.progress),
        best=_extreme(run.cohorts, max),
        cheapest=_extreme(run.cohorts, min),
        budgets=budgets,
        resources=resources,
        timeline=lanes,
        timeline_svg=timeline.draw(lanes, marks),
        statuses=timeline.TROUBLES,
        outcomes=outcomes.most_telling(devices),
        outcome_count=len(devices),
        troubles=run.troubles[:MOST_TROUBLES],
        trouble_counts=sorted(Counter(printable(event.get("status"), 20) for event in run.troubles).items()),
        settings=_settings(run.config),
        plural=wording.plural,
        number_of=number_of,
        style=STYLE,
        script=SCRIPT,
        script_hash=base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode(),
    )


@cache
def _template() -> jinja2.Template:
    """Compiled once in a process: a live report is drawn again and again."""
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({"page": TEMPLATE, "outcomes": outcomes.SECTION, "pace": pace.SECTION, **SECTIONS}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "size": size,
        "percent": wording.percent,
        "duration": wording.duration,
        "printable": printable,
    }
    return environment.get_template("page")


def _extreme(cohorts: Iterable[Cohort], choose: Any) -> Cohort | None:
    """The cohort with the most or the fewest MACs among those that were evaluated."""
    known = [each for each in cohorts if math.isfinite(each.macs) and math.isfinite(each.test_accuracy)]
    chosen: Cohort | None = choose(known, key=lambda each: each.macs, default=None)
    return chosen


def _use(used: float, bound: float, words: Callable[[float], str]) -> Use:
    known, bounded = used != 0 and math.isfinite(used), math.isfinite(bound)
    share = used / bound if bound > 0 else math.nan
    return Use(words(used) if known else "", words(bound) if bounded else "", share)


def _budget_table(run: Run) -> tuple[list[str], list[BudgetRow]]:
    """The resources that some device bounds, and the rows with these alone: others would only widen the table."""
    rows = _budget_rows(run)
    titles = [*(title for _, title, _ in RESOURCES), *OF_THE_DEVICE]
    bounded = [place for place in range(len(titles)) if any(row.uses[place].bound for row in rows)]
    return (
        [titles[place] for place in bounded],
        [replace(row, uses=tuple(row.uses[place] for place in bounded)) for row in rows],
    )


def _budget_rows(run: Run) -> list[BudgetRow]:
    """One row per cohort and distinct bounds, in the order of the cohorts, with all resources."""
    cohorts = {cohort.name: cohort for cohort in run.cohorts}
    groups: dict[tuple[str, str, str], list[BudgetEntry]] = {}
    for entry in run.budgets:
        key = (entry.cohort, str(entry.budget), str(entry.latency_ms_used))
        groups.setdefault(key, []).append(entry)
    order = list(cohorts)
    rows = []
    for key in sorted(groups, key=lambda key: (order.index(key[0]) if key[0] in cohorts else len(order), key)):
        entries, cohort = groups[key], cohorts.get(key[0])
        uses = []
        for name, _, words in RESOURCES:
            bound = number_of(getattr(entries[0].budget, name))
            used = getattr(cohort, name) if cohort else math.nan
            uses.append(_use(used, bound, words))
        budget, one = entries[0].budget, entries[0]
        milliseconds = budget.latency.milliseconds if budget.latency else None
        uses.append(_use(number_of(one.training_memory_bytes_used), number_of(budget.training_memory_bytes), size))
        uses.append(_use(one.latency_ms_used, number_of(milliseconds), lambda number: f"{number:.3g} ms"))
        rows.append(
            BudgetRow(
                cohort=key[0],
                devices=tuple(printable(entry.name, 40) for entry in entries),
                profiles=", ".join(sorted({printable(entry.profile, 40) for entry in entries})),
                samples=sum(entry.samples for entry in entries),
                uses=tuple(uses),
            )
        )
    return rows


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Key, value, and whether the value differs from the default."""
    defaults = Config().to_mapping()
    return [(key, str(value), key in defaults and defaults[key] != value) for key, value in config.items()]
