"""The report's table of devices: how often each was asked, what became of it, and how long it took."""

import math
from collections import Counter
from dataclasses import dataclass

from server.report.record import Run
from server.report.wording import number_of, printable

MOST_ROWS = 200

SECTION = """\
<section>
<h2>Round by round, device by device</h2>
<p class="about">{% if timeline.by_cohort %}There are too many devices for a lane each, so a lane is a cohort{% else %}\
A lane is a device{% endif %} and a column {{ "a round" if timeline.step == 1 else timeline.step ~ " rounds" }}. \
The length of a bar is the time spent on training; the longest fills its column.{% if timeline.summed %} \
Of several devices or rounds the bar is the mean, and the mark below it the most frequent trouble, its area the share \
that had any.{% endif %} Where there is neither bar nor mark, nobody was asked.{% if timeline.hidden_lanes %} \
{{ timeline.hidden_lanes }} more lanes are left out.{% endif %}</p>
<div class="legend"><span><span aria-hidden="true">▬</span> trained: {{ timeline.counts["trained"] }}</span>
{% for status, (colour, glyph) in statuses.items() %}
<span><span style="color:{{ colour }}" aria-hidden="true">{{ glyph }}</span> {{ status }}: \
{{ timeline.counts[status] }}</span>
{% endfor %}
</div>
<div class="figure" tabindex="0" role="group" aria-label="Timeline">{{ timeline_svg | safe }}</div>
<details{% if outcomes | length <= 20 %} open{% endif %}><summary>{{ plural(outcome_count, "device") }}, one by one\
</summary>
<div class="scroll"><table class="sortable">
<thead><tr><th class="text">Device</th><th class="text">Profile</th><th class="text">Cohort</th><th>Samples</th>
<th>Asked</th><th>Trained</th><th>Late</th><th>Failed</th><th>Rejected</th><th>Mean time</th>
<th class="text">Last reason</th></tr></thead>
<tbody>
{% for each in outcomes %}
<tr><td class="text foreign">{{ each.device }}</td><td class="text">{{ each.profile }}</td>
<td class="text">{{ cohort(each.cohort) }}</td>
{{ number(each.samples, each.samples | count) }}
<td>{{ each.asked }}</td><td>{{ each.trained }}</td><td>{{ each.late }}</td><td>{{ each.failed }}</td>
<td>{{ each.rejected }}</td>
{{ number(each.mean_seconds, each.mean_seconds | duration) }}
<td class="text foreign">{{ each.last_reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if outcome_count > outcomes | length %}
<p class="about">And {{ outcome_count - outcomes | length }} more, without trouble, in budgets.json and metrics.jsonl.\
</p>
{% endif %}
</details>
</section>
"""


@dataclass(frozen=True)
class DeviceOutcome:
    """One device's rounds: how often it was asked to train and what became of it, and its mean seconds of training.

    `last_reason` is why it last did not count; its words may be the device's own.
    """

    device: str
    profile: str
    cohort: str
    samples: float
    asked: int
    trained: int
    late: int
    failed: int
    rejected: int
    mean_seconds: float
    last_reason: str


def outcomes_of(run: Run) -> list[DeviceOutcome]:
    """Every device that reported or was asked, in the order of budgets.json; those it does not list come last.

    A device that was refused before the first round was asked nothing, but counts as rejected once.
    """
    entries = {entry.name: entry for entry in run.budgets}
    cohorts = {device: entry.cohort for device, entry in entries.items()}
    counts: dict[str, Counter[str]] = {device: Counter() for device in entries}
    seconds: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for event in run.device_events:
        device, status = str(event.get("device")), str(event.get("status"))
        cohorts.setdefault(device, str(event.get("cohort", "")))
        counted = counts.setdefault(device, Counter())
        counted[status] += 1
        counted["asked"] += number_of(event.get("round")) >= 1
        took = number_of(event.get("seconds"))
        if status == "trained" and math.isfinite(took):
            seconds.setdefault(device, []).append(took)
        if status != "trained":
            reasons[device] = str(event.get("reason") or "")
    return [
        DeviceOutcome(
            device=printable(device, 80),
            profile=printable(entries[device].profile if device in entries else "", 40),
            cohort=cohorts[device],
            samples=float(entries[device].samples) if device in entries else math.nan,
            asked=counted["asked"],
            trained=counted["trained"],
            late=counted["late"],
            failed=counted["failed"],
            rejected=counted["rejected"],
            mean_seconds=sum(seconds[device]) / len(seconds[device]) if device in seconds else math.nan,
            last_reason=printable(reasons.get(device, "")),
        )
        for device, counted in counts.items()
    ]


def most_telling(outcomes: list[DeviceOutcome]) -> list[DeviceOutcome]:
    """At most MOST_ROWS of them, in their order: those with trouble before those without."""
    troubled = [each for each in outcomes if each.late + each.failed + each.rejected]
    fine = [each for each in outcomes if not each.late + each.failed + each.rejected]
    kept = {id(each) for each in [*troubled, *fine][:MOST_ROWS]}
    return [each for each in outcomes if id(each) in kept]
