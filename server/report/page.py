"""The report's page as text: Flower's app bundle ships only a few kinds of file, and .py is one of them."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d9dee4; --accent: #0072b2;
  --bar: #c9d1d9; --bar-fill: #0072b2; --warn: #b3430b; --warn-page: #fff4ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1318; --card: #181d24; --ink: #e6e9ed; --soft: #9aa4af; --line: #2c343d; --accent: #56b4e9;
    --bar: #333c46; --bar-fill: #56b4e9; --warn: #f2a66f; --warn-page: #2a1f17;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif;
}
main { max-width: 1200px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: clamp(1.7rem, 4.5vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em; margin: .15em 0 .35em; }
h2 { font-size: 1.3rem; letter-spacing: -.01em; margin: 0 0 .2em; }
section { margin-top: 48px; }
p { margin: .3em 0 .9em; max-width: 74ch; }
a { color: var(--accent); }
.eyebrow { color: var(--accent); font-weight: 650; font-size: .85rem; letter-spacing: .02em; margin: 0; }
.lede { font-size: 1.08rem; color: var(--soft); }
.about { color: var(--soft); font-size: .94rem; }
.banner {
  border-left: 4px solid var(--warn); background: var(--warn-page); padding: 12px 16px; border-radius: 6px;
  margin: 20px 0; max-width: none;
}
.banner.calm { border-left-color: var(--accent); background: var(--card); }
.tile dd.note { font-size: .8rem; font-weight: 400; color: var(--soft); letter-spacing: 0; line-height: 1.35; }
.heat td { text-align: center; min-width: 3.2em; padding: 7px 8px; }
.heat td.text { text-align: left; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; margin: 26px 0 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; }
.tile dt { color: var(--soft); font-size: .82rem; }
.tile dd {
  margin: 2px 0 0; font-size: 1.32rem; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; line-height: 1.25;
}
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: 9px; text-align: right; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; font-size: .84rem; vertical-align: bottom; }
th.text, td.text { text-align: left; }
td.number { white-space: nowrap; }
td.list { white-space: normal; min-width: 17ch; }
td.foreign { overflow-wrap: anywhere; min-width: 24ch; }
tfoot td { font-weight: 650; }
thead button { all: unset; cursor: pointer; }
thead button:hover, thead button:focus-visible { color: var(--accent); text-decoration: underline; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.cohort { white-space: nowrap; font-weight: 600; }
.glyph { display: inline-block; width: 1.25em; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 12px; font-size: .9rem; }
.legend .key { color: var(--soft); }
.panels { display: grid; gap: 14px; }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.three { grid-template-columns: repeat(auto-fit, minmax(min(100%, 290px), 1fr)); }
/* Figures are drawn in dark ink: they keep a white card on every background. */
.figure { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 12px; overflow-x: auto; }
.plot { display: block; width: 100%; height: auto; margin: 0 auto; }
.plot * { stroke-linejoin: round; stroke-linecap: butt; }
.plot text {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif
    !important;
}
.use { min-width: 150px; }
.use .words { display: flex; justify-content: space-between; gap: 10px; white-space: nowrap; font-size: .86rem; }
.use .words span:first-child { color: var(--soft); }
.meter { height: 6px; border-radius: 3px; background: var(--bar); margin-top: 4px; overflow: hidden; }
.meter span { display: block; height: 100%; background: var(--bar-fill); }
.over { color: var(--warn); font-weight: 650; }
.over + .meter span { background: var(--warn); }
.none { color: var(--soft); text-align: left; }
td:first-child .names { min-width: 14ch; overflow-wrap: break-word; }
.names { color: var(--soft); font-size: .86rem; overflow-wrap: anywhere; }
details { margin-top: 12px; }
summary { cursor: pointer; font-weight: 600; padding: 6px 0; }
code, pre {
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .88em;
}
pre {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; overflow-x: auto;
}
tr.changed td { font-weight: 650; }
footer { margin-top: 56px; color: var(--soft); font-size: .86rem; }
@media (max-width: 600px) {
  main { padding: 24px 14px 40px; }
  section { margin-top: 36px; }
  th, td { padding: 8px 10px; }
  .figure { padding: 8px; }
  .tiles { grid-template-columns: repeat(2, 1fr); }
}
@media print {
  :root {
    color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #ccc; --accent: #0072b2;
    --bar: #ddd; --bar-fill: #0072b2; --warn: #b3430b; --warn-page: #fff;
  }
  body { font-size: 11px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  .figure, .tile, tr, pre { break-inside: avoid; }
  h2, .about, .legend { break-after: avoid; }
  .two { grid-template-columns: 1fr 1fr; }
  .three { grid-template-columns: 1fr 1fr 1fr; }
  .plot { min-width: 0 !important; }
  .scroll, .figure { overflow: visible; }
  section { margin-top: 22px; }
}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b)) * (up ? 1 : -1));
      table.tBodies[0].append(...rows);
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
    });
  });
}
"""

TEMPLATE = """\
{% macro cohort(name) -%}
<span class="cohort">{% if name in marks %}<span class="glyph" style="color:{{ marks[name].colour }}" \
aria-hidden="true">{{ marks[name].glyph }}</span>{% endif %}{{ name | printable(60) }}</span>
{%- endmacro %}
{% macro legend(kinds=false) %}
<div class="legend">
{% for name in marks %}{{ cohort(name) }}
{% endfor %}
{% if kinds %}<span class="key">solid: test</span><span class="key">dashed: validation</span>{% endif %}
</div>
{% endmacro %}
{% macro figures(which, columns) %}
<div class="panels {{ columns }}">
{% for panel in panels[which] %}<div class="figure"{% if columns == "one" %} tabindex="0" role="group" \
aria-label="Figure"{% endif %}>{{ panel | safe }}</div>
{% endfor %}
</div>
{% endmacro %}
{% macro number(value, words) %}
<td class="number" data-value="{{ '%.9f' | format(value) }}">{{ words }}</td>
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'sha256-{{ script_hash }}'">
{% if live_at %}<meta http-equiv="refresh" content="10">
{% endif %}
<title>FedDAC run: {{ run.data | printable(80) }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">FedDAC run report</p>
{% if run.test_accuracy == run.test_accuracy %}
<h1>{{ run.test_accuracy | percent }} accuracy on {{ run.data | printable(80) }}</h1>
{% else %}
<h1>Run on {{ run.data | printable(80) }}</h1>
{% endif %}
<p class="lede">
{{ plural(run.devices, "device") }} in {{ plural(run.cohorts | length, "cohort") }},
{{ plural(run.rounds, "round") }} with method {{ run.method | printable(40) }}.
{% if best and best != cheapest %}
The largest architecture takes {{ best.macs | count }} MACs per image and reaches {{ best.test_accuracy | percent }};
the smallest takes {{ (cheapest.macs / best.macs) | percent }} of that and reaches
{{ cheapest.test_accuracy | percent }}.
{% endif %}
</p>
{% if live_at %}
<p class="banner calm" role="status"><strong>This run is under way.</strong> The page shows it as it was at
{{ live_at }} and reloads itself. If that is long ago, the run was stopped: continue it with
<code>feddac simulate --resume RUN_FOLDER</code>.</p>
{% elif not run.finished %}
<p class="banner"><strong>This run did not finish.</strong> The report shows what was recorded until round
{{ run.rounds }}. Continue the run with <code>feddac simulate --resume RUN_FOLDER</code>.</p>
{% endif %}
{% include "worse" %}
<dl class="tiles">
{% include "accuracy" %}
<div class="tile"><dt>Data</dt><dd>{{ run.data | printable(80) }}</dd></div>
<div class="tile"><dt>Devices</dt><dd>{{ run.devices }}</dd></div>
<div class="tile"><dt>Cohorts</dt><dd>{{ run.cohorts | length }}</dd></div>
<div class="tile"><dt>Rounds</dt><dd>{{ run.rounds }}</dd></div>
<div class="tile"><dt>Bytes moved</dt><dd>{{ (run.bytes_down + run.bytes_up) | size }}</dd></div>
<div class="tile"><dt>Total time</dt><dd>{{ run.seconds_total | duration }}</dd></div>
<div class="tile"><dt>Peak memory of the server</dt><dd>{{ run.peak_rss_bytes | size }}</dd></div>
</dl>
</header>

{% if run.cohorts %}
<section>
<h2>Result</h2>
<p class="about">Devices with the same architecture form a cohort. Costs are exact for one image; accuracy is measured
on the server's test images, which served no choice{% if run.test_images == run.test_images %}; below it the range in
which it lies with 95 % certainty, as there are only so many images{% endif %}.{% if run.own %} Own accuracy is what
its devices scored on images of their own, held out of training, as their mean\
{% if run.cohorts | selectattr("runs_another_network") | list %}; it is that of the network that they run alone, whose
test accuracy stands below it{% endif %}.{% endif %}</p>
<div class="scroll" tabindex="0" role="region" aria-label="Result"><table class="sortable">
<thead><tr><th class="text">Cohort</th><th>Test accuracy</th>{% if run.own %}<th>Own accuracy</th>{% endif %}
<th>Before</th><th>Validation</th><th>Devices</th><th>MACs</th><th>Parameters</th><th>Peak memory</th>
<th>MACs per device and round</th><th>Bytes down</th><th>Bytes up</th></tr></thead>
<tbody>
{% for each in run.cohorts %}
<tr><td class="text">{{ cohort(each.name) }}
<div class="names">{{ each.profiles | join(", ") | printable(80) }}</div></td>
{% set low, high = interval(each.test_accuracy, run.test_images) %}
<td class="number" data-value="{{ '%.9f' | format(each.test_accuracy) }}">{{ each.test_accuracy | percent }}
{% if low == low %}<div class="names">{{ low | percent }} to {{ high | percent }}</div>{% endif %}</td>
{% if run.own %}
<td class="number" data-value="{{ '%.9f' | format(each.own_accuracy) }}">{{ each.own_accuracy | percent }}
{% if each.runs_another_network %}<div class="names">test {{ each.device_network_accuracy | percent }}</div>{% endif %}
</td>
{% endif %}
{{ number(each.accuracy_before, each.accuracy_before | percent) }}
{{ number(each.validation_accuracy, each.validation_accuracy | percent) }}
{{ number(each.devices, each.devices) }}{{ number(each.macs, each.macs | count) }}
{{ number(each.params, each.params | count) }}{{ number(each.peak_memory_bytes, each.peak_memory_bytes | size) }}
{{ number(each.device_macs_per_round, each.device_macs_per_round | count) }}
{{ number(each.bytes_down, each.bytes_down | size) }}{{ number(each.bytes_up, each.bytes_up | size) }}</tr>
{% endfor %}
</tbody>
<tfoot><tr><td class="text">Mean over devices, or total</td>
<td class="number">{{ run.test_accuracy | percent }}</td>
{% if run.own %}<td class="number">{{ run.own_accuracy | percent }}</td>{% endif %}
<td class="number">{{ run.accuracy_before | percent }}</td><td></td>
<td>{{ run.devices }}</td><td></td><td></td><td></td>
<td class="number">{{ run.device_macs_per_round | count }}</td>
<td class="number">{{ run.bytes_down | size }}</td><td class="number">{{ run.bytes_up | size }}</td></tr></tfoot>
</table></div>
{% if run.server_seconds == run.server_seconds %}
<p class="about">MACs per device and round are those of its whole work, all passes over all its images. On the server
the method took {{ run.server_seconds | duration }} beside waiting and testing, held {{ run.server_bytes | size }}
between rounds, and took the network that it trained most {{ plural(run.epochs_on_reference | int, "time") }} through
the reference set.</p>
{% endif %}
</section>
{% endif %}

{% if panels.accuracy %}
<section>
<h2>Learning, round by round</h2>
<p class="about">Each cohort's model after every round. Round 0 is the model before federated training.</p>
{{ legend(true) }}{{ figures("accuracy", "two") }}
</section>
{% endif %}

{% include "pace" %}

{% include "classes" %}

{% if panels.cost %}
<section>
<h2>What accuracy costs a device</h2>
<p class="about">Test accuracy against the cost of each cohort's architecture. The area of a point grows with the number
of devices in the cohort.</p>
{{ legend() }}{{ figures("cost", "three") }}
</section>
{% endif %}

{% if budgets %}
<section>
<h2>Budgets and their use</h2>
<p class="about">{% if resources %}Bounds are strict: an architecture has to stay below every one of them.{% else %}\
No device has a bound.{% endif %} Devices with the same bounds share a row.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Budgets and their use"><table class="sortable">
<thead><tr><th class="text">Cohort</th><th class="text">Devices</th><th>Samples</th>
{% for title in resources %}<th class="text">{{ title }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in budgets %}
<tr><td class="text">{{ cohort(row.cohort) }}</td>
<td class="text" data-value="{{ row.devices | length }}">{{ row.profiles }}<div class="names">\
{% if row.devices | length > 1 %}{{ row.devices | length }} devices: {% else %}device {% endif %}\
{{ row.devices[:6] | join(", ") }}{% if row.devices | length > 6 %}, and {{ row.devices | length - 6 }} more{% endif %}\
</div></td>
<td class="number">{{ row.samples }}</td>
{% for use in row.uses %}
{% if use.share == use.share %}
<td class="use" data-value="{{ '%.6f' | format(use.share) }}">\
<div class="words{{ '' if use.within else ' over' }}"><span>{{ use.used }} of {{ use.bound }}</span>\
<span>{{ use.share | percent }}</span></div>\
<div class="meter"><span style="width:{{ '%.1f' | format([100 * use.share, 100] | min) }}%"></span></div></td>
{% else %}
<td class="use none" data-value="-1">{% if use.bound %}{{ use.bound }}{% else %}\
{{ use.used + ", " if use.known }}no bound{% endif %}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
</section>
{% endif %}

{% include "partition" %}

{% if panels.channels %}
<section>
<h2>What each architecture keeps</h2>
<p class="about">Inner channels of every block. A dark cell keeps nearly all of the base network's channels, a light one
few; the number is how many.</p>
{{ figures("channels", "one") }}
</section>
{% endif %}

{% if panels.search %}
<section>
<h2>The search</h2>
<p class="about">The base network shrinks while it trains. Dashed lines in a cohort's colour mark the cost of its
architecture.</p>
{{ legend() }}{{ figures("search", "three") }}
</section>
{% endif %}

{% if panels.traffic %}
<section>
<h2>Time and traffic</h2>
<p class="about">{{ run.bytes_down | size }} went to the devices and {{ run.bytes_up | size }} came back. Bytes of the
cohorts are stacked.</p>
{{ legend() }}{{ figures("traffic", "three") }}
</section>
{% endif %}

{% if timeline_svg %}
{% include "outcomes" %}
{% endif %}

{% if troubles %}
<section>
<h2>Devices whose work did not count</h2>
<p class="about">{% for status, amount in trouble_counts %}{{ amount }} {{ status }}{{ ", " if not loop.last else "." }}
{% endfor %} The reasons are partly in the devices' own words.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Devices whose work did not count"><table class="sortable">
<thead><tr><th>Round</th><th class="text">Device</th><th class="text">Cohort</th><th class="text">Status</th>
<th>Time</th><th class="text">Reason</th></tr></thead>
<tbody>
{% for event in troubles %}
<tr><td>{{ event.get("round", "") | printable(20) }}</td>
<td class="text foreign">{{ event.get("device", "") | printable(80) }}</td>
<td class="text">{{ cohort(event.get("cohort", "") | string) }}</td>
<td class="text">{{ event.get("status", "") | printable(20) }}</td>
{{ number(number_of(event.get("seconds")), number_of(event.get("seconds")) | duration) }}
<td class="text foreign">{{ (event.get("reason") or "") | printable }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if run.troubles | length > troubles | length %}
<p class="about">And {{ run.troubles | length - troubles | length }} more in metrics.jsonl.</p>
{% endif %}
</section>
{% endif %}

<section>
<h2>Reproduce it</h2>
<p class="about">In the run folder, which holds every setting of this run:</p>
<pre tabindex="0">feddac simulate --config config.toml{% if run.config.get("out") %} --out again{% endif %}</pre>
{% include "about" %}
<details><summary>All {{ settings | length }} settings</summary>
<p class="about">Settings that differ from their default are bold.</p>
<div class="scroll" tabindex="0" role="region" aria-label="Settings"><table>
<thead><tr><th class="text">Setting</th><th class="text">Value</th></tr></thead>
<tbody>
{% for key, value, changed in settings %}
<tr{% if changed %} class="changed"{% endif %}><td class="text"><code>{{ key }}</code></td>
<td class="text foreign">{{ value | printable(1000) }}</td></tr>
{% endfor %}
</tbody></table></div></details>
</section>
<footer>Made by FedDAC from the files of this run folder; this page loads nothing from anywhere else.</footer>
</main>
<script>{{ script | safe }}</script>
</body>
</html>
"""
