"""The report's section on what accuracy took: simulated time, rounds, bytes and the devices' work."""

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.wording import duration, percent
from server.report.drawing import INK, new_axes, percent_axis, to_svg
from server.report.figures import HALF
from server.report.record import Run

SECTION = """\
{% if milestones %}
<section>
<h2>What accuracy took</h2>
<p class="about">What had been spent when the mean over devices first reached an accuracy. Simulated time is what the
rounds would take on the devices that are played: the slowest one's multiply-accumulates, a training pass counted as
three forward passes, and its messages over its network. Bytes are all messages', MACs those of all devices.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Costs to an accuracy"><table class="sortable">
<thead><tr><th>Accuracy</th><th>Round</th><th>Simulated time</th><th>Bytes</th><th>MACs of all devices</th></tr></thead>
<tbody>
{% for each in milestones %}
<tr>{{ number(each.target, each.target | percent) }}{{ number(each.round, each.round) }}
{{ number(each.simulated_seconds, each.simulated_seconds | duration) }}{{ number(each.bytes, each.bytes | size) }}
{{ number(each.device_macs, each.device_macs | count) }}</tr>
{% endfor %}
</tbody></table></div>
{% if panels.pace %}{{ figures("pace", "two") }}{% endif %}
</section>
{% endif %}
"""


def pace_panels(run: Run) -> list[str]:
    """Mean accuracy over devices against simulated hours; none where nobody recorded them."""
    points = [one for one in run.progress if math.isfinite(one.simulated_seconds)]
    if len(points) < 2 or not points[-1].simulated_seconds:
        return []
    figure, axes = new_axes(*HALF, "Accuracy over simulated time")
    hours = [one.simulated_seconds / 3600 for one in points]
    every = max(1, len(points) // 12)
    (line,) = axes.plot(hours, [one.accuracy for one in points], color=INK, marker="o", markevery=every)
    line.set_gid("pace-mean")
    percent_axis(axes)
    hours_axis(axes)
    tip = f"{percent(points[-1].accuracy)} after {duration(points[-1].simulated_seconds)}"
    return [to_svg(figure, "pace", "Accuracy over simulated time", {"pace-mean": tip})]


def hours_axis(axes: Axes) -> None:
    """Simulated hours on the horizontal axis."""
    axes.set_xlabel("simulated hours")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
