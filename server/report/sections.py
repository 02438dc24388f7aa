"""Sections of the report's page that stand for themselves; macros are those of `server.report.page`."""

WORSE = """\
{% if run.made_worse %}
<p class="banner"><strong>The rounds made it worse:</strong> {{ run.accuracy_before | percent }} before the first,
{{ run.test_accuracy | percent }} after the last. On data that differs between devices,
<code>--preset recommended</code> often helps; so does a lower <code>--learning-rate</code>.</p>
{% endif %}
"""

ACCURACY = """\
{% set low, high = interval(run.test_accuracy, run.test_images) %}
<div class="tile"><dt>Accuracy on the server's test images, mean over devices</dt>
<dd>{{ run.test_accuracy | percent }}</dd>
{% if low == low %}
<dd class="note">95 % interval {{ low | percent }} to {{ high | percent }}, from
{{ "{:,}".format(run.test_images | int) }} images</dd>
{% endif %}
</div>
{% if run.accuracy_before == run.accuracy_before %}
<div class="tile"><dt>Before the first round</dt><dd>{{ run.accuracy_before | percent }}</dd>
<dd class="note">{{ "%+.1f" | format(100 * (run.test_accuracy - run.accuracy_before)) }} points by federation</dd>
</div>
{% endif %}
{% if run.own %}
<div class="tile"><dt>Accuracy on the devices' own images, mean over devices</dt>
<dd>{{ run.own_accuracy | percent }}</dd>
<dd class="note">{{ plural(run.own.values() | sum("images"), "image") }} that {{ plural(run.own | length, "device") }}
held out of training</dd></div>
{% endif %}
"""

CLASSES = """\
{% if run.class_names and run.cohorts | selectattr("class_accuracy") | list %}
<section>
<h2>Class by class</h2>
<p class="about">Accuracy of each cohort's model on the test images of one class.\
{% if run.class_names | length > 30 %} The first 30 of {{ run.class_names | length }} classes.{% endif %}</p>
<div class="scroll" tabindex="0" role="region" aria-label="Accuracy class by class"><table class="sortable">
<thead><tr><th class="text">Class</th>
{% for each in run.cohorts %}<th>{{ each.name | printable(60) }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name in run.class_names[:30] %}
{% set position = loop.index0 %}
<tr><td class="text">{{ name | printable(60) }}</td>
{% for each in run.cohorts %}
{% set value = each.class_accuracy[position] if position < each.class_accuracy | length else number_of(none) %}
<td class="number" data-value="{{ '%.9f' | format(value) }}">{{ value | percent }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
{% if run.cohorts | selectattr("quality") | list %}
<tfoot>
{% for key, words in (("best_of_five", "Among the best five answers"), ("precision", "Precision, mean over classes"),
("recall", "Recall, mean over classes"), ("f1", "F1, mean over classes")) %}
<tr><td class="text">{{ words }}</td>
{% for each in run.cohorts %}<td class="number">{{ number_of(each.quality.get(key)) | percent }}</td>{% endfor %}</tr>
{% endfor %}
</tfoot>
{% endif %}
</table></div>
</section>
{% endif %}
"""

PARTITION = """\
{% if heat %}
<section>
<h2>Who has which images</h2>
<p class="about">Training images of each class on each device, before anything is held out; only a simulation knows \
this.{% if run.partition | length > heat | length %} The first {{ heat | length }} of {{ run.partition | length }} \
devices.{% endif %}</p>
<div class="scroll" tabindex="0" role="region" aria-label="Images of each class on each device"><table class="heat">
<thead><tr><th class="text">Device</th>
{% for name in run.class_names[:30] %}<th>{{ name | printable(20) }}</th>{% endfor %}<th>All</th></tr></thead>
<tbody>
{% for row in heat %}
<tr><td class="text">{{ row.device | printable(60) }}</td>
{% for square in row.squares %}
<td style="background:{{ square.background }};color:{{ square.ink }}">{{ square.count }}</td>
{% endfor %}
<td>{{ row.total }}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
{% endif %}
"""

ABOUT = """\
{% if run.host %}
<p class="about">{% if run.host.date %}{{ run.host.date | printable(40) }}{% endif %}\
{% for name, text in (run.host.versions or {}).items() %}, {{ name | printable(30) }} {{ text | printable(40) }}\
{% endfor %}{% if run.host.host %}; on {{ run.host.host.name | printable(60) }} \
({{ run.host.host.system | printable(60) }}, {{ run.host.host.cpus }} CPUs\
{% if run.host.host.gpu %}, {{ run.host.host.gpu | printable(60) }}{% endif %}){% endif %}.</p>
{% endif %}
"""

SECTIONS = {"worse": WORSE, "accuracy": ACCURACY, "classes": CLASSES, "partition": PARTITION, "about": ABOUT}
