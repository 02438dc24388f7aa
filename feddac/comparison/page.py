"""comparison.html: tables and plots on one page that loads nothing from anywhere else."""

from collections.abc import Sequence

import jinja2

from common.wording import plural
from feddac.comparison.collect import CellResult
from feddac.comparison.figures import cell_panels, overview_panel
from feddac.comparison.plan import Experiment
from feddac.comparison.tables import HEADINGS, TABLES, cell_tables, notes
from server.report.drawing import marks_of, report_style
from server.report.page import STYLE

TEMPLATE = """\
{% macro method(name) -%}
<span class="cohort"><span class="glyph" style="color:{{ marks[name].colour }}" aria-hidden="true">\
{{ marks[name].glyph }}</span>{{ name }}</span>
{%- endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{ experiment.title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">FedDAC comparison</p>
<h1>{{ experiment.title }}</h1>
<p class="lede">{{ plural(experiment.methods | length, "method") }}, \
{{ plural(experiment.seeds | length, "seed") }}, {{ plural(experiment.cells | length, "setting") }}; \
{{ finished }} of {{ plural(experiment.runs | length, "run") }} finished.</p>
</header>
{% if failures %}
<div class="banner"><strong>{{ plural(failures | length, "run") }} failed.</strong>
{% for run, reason in failures %}<br>{{ run }}: {{ reason }}{% endfor %}
</div>
{% endif %}
{% if overview %}
<section>
<h2>At a glance</h2>
<p class="about">Test accuracy, averaged over all devices; those without a model guess. Bars reach one standard \
deviation over seeds to either side.</p>
<div class="panels"><div class="figure" tabindex="0" role="group" aria-label="At a glance">\
{{ overview | safe }}</div></div>
</section>
{% endif %}
{% for table in tables %}
<section>
<h2>{{ table.title }}</h2>
{% for columns in parts %}
<div class="scroll" style="margin-top:14px" tabindex="0" role="region" \
aria-label="{{ table.title }}, {{ loop.index }}"><table>
<thead><tr>{% for column in columns %}<th{{ ' class="text"' | safe if loop.first }}>{{ headings[column] }}</th>\
{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for column in columns %}{% if loop.first %}<td class="text">{{ method(row[column]) }}</td>\
{% else %}<td class="number{{ ' list' if headings[column] == 'per cohort' }}">{{ row[column] }}</td>{% endif %}\
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
<p class="about">Its runs:
{% for each in results[loop.index0].methods %}
{% if each.outcomes %}{{ method(each.name) }}
{% for run in each.outcomes %}<a href="{{ (run.folder ~ "/report.html") | urlencode }}">seed {{ run.seed }}</a>\
{{ ", " if not loop.last else ";" }}
{% endfor %}{% endif %}
{% endfor %}
</p>
{% set drawn = panels[loop.index0] %}
{% if drawn %}
<div class="panels two" style="margin-top:14px">
{% for panel in drawn %}<div class="figure">{{ panel | safe }}</div>
{% endfor %}
</div>
{% endif %}
</section>
{% endfor %}
<section>
<h2>How to read it</h2>
{% for note in notes %}
<p class="about">{{ note }}</p>
{% endfor %}
<details><summary>What the methods are</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Methods"><table>
<thead><tr><th class="text">Method</th><th class="text">Settings by which it differs</th></tr></thead>
<tbody>
{% for name, settings in experiment.methods.items() %}
<tr><td class="text">{{ method(name) }}</td><td class="text">\
{% for key, value in settings.items() %}<code>{{ key }} = {{ value }}</code>{{ ", " if not loop.last }}{% endfor %}\
</td></tr>
{% endfor %}
</tbody></table></div></details>
</section>
<footer>Made by feddac compare from the run folders beside it; this page loads nothing from anywhere else.</footer>
</main>
</body>
</html>
"""


def render(experiment: Experiment, results: Sequence[CellResult], failures: Sequence[tuple[str, str]]) -> str:
    """The page; `failures` are (run, reason)."""
    marks = marks_of(experiment.methods)
    finished = sum(len(method.outcomes) for one in results for method in one.methods)
    with report_style():
        panels = [cell_panels(one, number, marks) for number, one in enumerate(results)]
        glance = overview_panel(results, marks) if finished else ""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE).render(
        experiment=experiment,
        finished=finished,
        failures=failures,
        overview=glance,
        tables=cell_tables(results),
        results=results,
        panels=panels,
        headings=HEADINGS,
        parts=TABLES,
        notes=notes(experiment),
        marks=marks,
        plural=plural,
        style=STYLE,
    )
