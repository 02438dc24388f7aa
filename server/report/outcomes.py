"""The report's table of devices: how good each one's model is, how often it was asked, and what became of that."""

import math
from collections import Counter
from dataclasses import dataclass

from common.wording import number_of, printable
from server.report.record import Run

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
{% set troubled = outcomes | selectattr("troubles") | list %}
<details{% if outcomes | length <= 20 %} open{% endif %}><summary>{{ plural(outcome_count, "device") }}, one by one\
</summary>
{% if run.own %}
<p class="about">Test accuracy is that of the device's network on the server's test images; own accuracy on so many
images of its own, which it held out of training. They are few: among devices it also differs by chance.</p>
{% endif %}
<div class="scroll" tabindex="0" role="region" aria-label="Devices, one by one"><table class="sortable">
<thead><tr><th class="text">Device</th><th class="text">Profile</th><th class="text">Cohort</th>
<th>Test accuracy</th>{% if run.own %}<th>Own accuracy</th>{% endif %}<th>Samples</th><th>Asked</th><th>Trained</th>
{% if troubled %}<th>Late</th><th>Failed</th><th>Rejected</th>{% endif %}<th>Mean time</th>
{% if troubled %}<th class="text">Last reason</th>{% endif %}</tr></thead>
<tbody>
{% for each in outcomes %}
<tr><td class="text foreign">{{ each.device }}</td><td class="text">{{ each.profile }}</td>
<td class="text">{{ cohort(each.cohort) }}</td>
{{ number(each.test_accuracy, each.test_accuracy | percent) }}
{% if run.own %}
<td class="number" data-value="{{ '%.9f' | format(each.own_accuracy) }}">{{ each.own_accuracy | percent }}
{% if each.own_images %}<div class="names">{{ plural(each.own_images, "image") }}</div>{% endif %}</td>
{% endif %}
{{ number(each.samples, each.samples | count) }}
<td>{{ each.asked }}</td><td>{{ each.trained }}</td>
{% if troubled %}<td>{{ each.late }}</td><td>{{ each.failed }}</td><td>{{ each.rejected }}</td>{% endif %}
{{ number(each.mean_seconds, each.mean_seconds | duration) }}
{% if troubled %}<td class="text foreign">{{ each.last_reason }}</td>{% endif %}</tr>
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

    `test_accuracy` and `own_accuracy` are those of the network that runs on it, on the server's test images and on
    `own_images` of its own. `last_reason` is why it last did not count; its words may be the device's own.
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
    test_accuracy: float = math.nan
    own_accuracy: float = math.nan
    own_images: int = 0

    @property
    def troubles(self) -> int:
        """How often its work did not count."""
        return self.late + self.failed + self.rejected


def outcomes_of(run: Run) -> list[DeviceOutcome]:
    """Every device that reported or was asked, in the order of budgets.json; those it does not list come last.

    A device that was refused before the first round was asked nothing, but counts as rejected once.
    """
    entries = {entry.name: entry for entry in run.budgets}
    cohorts = {device: entry.cohort for device, entry in entries.items()}
    accuracies = {cohort.name: cohort.accuracy_on_devices for cohort in run.cohorts}
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
            test_accuracy=accuracies.get(cohorts[device], math.nan),
            own_accuracy=run.own[device].accuracy if device in run.own else math.nan,
            own_images=run.own[device].images if device in run.own else 0,
        )
        for device, counted in counts.items()
    ]


def most_telling(outcomes: list[DeviceOutcome]) -> list[DeviceOutcome]:
    """At most MOST_ROWS of them, in their order: those with trouble before those without."""
    troubled = [each for each in outcomes if each.troubles]
    fine = [each for each in outcomes if not each.troubles]
    kept = {id(each) for each in [*troubled, *fine][:MOST_ROWS]}
    return [each for each in outcomes if id(each) in kept]
