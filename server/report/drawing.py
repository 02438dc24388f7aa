"""One look for every figure, and figures as SVG that can live together inside one HTML page."""

import html
import io
import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

INK = "#24292f"
SOFT_INK = "#656d76"
GRID = "#e4e7eb"

# Okabe and Ito's palette, distinguishable with every common colour blindness; its yellow and black are left out because
# they vanish on white or read as text.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6E6E6E")
MARKERS = (("o", "●"), ("s", "■"), ("D", "◆"), ("^", "▲"), ("v", "▼"), ("P", "✚"), ("X", "✖"))

TICK_SIZE = 9.6
"""Points of the smallest text of a figure."""

SMALLEST_TEXT = 11
"""Pixels below which no text is shown: a figure scrolls before it shrinks further."""

LETTERS_PER_INCH = 8.8
"""Of a title, so that it ends before the figure does."""

MOST_ENLARGED = 1.5
"""How much larger than drawn a figure may be shown."""

# Any, because matplotlib's stubs spell the type of a style differently from version to version.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "feddac",
    # Names come from devices: a dollar sign in one must not start a formula.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.8,
    "axes.titlesize": 10.4,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.titlecolor": INK,
    "axes.labelsize": 9.8,
    "axes.labelcolor": SOFT_INK,
    "axes.edgecolor": "#b6bcc4",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#b6bcc4",
    "ytick.color": "#b6bcc4",
    "xtick.labelcolor": SOFT_INK,
    "ytick.labelcolor": SOFT_INK,
    "xtick.labelsize": TICK_SIZE,
    "ytick.labelsize": TICK_SIZE,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Mark:
    """How a cohort looks in every figure: colour and shape, so that colour is never the only cue."""

    colour: str
    marker: str
    glyph: str


def marks_of(cohorts: Iterable[str]) -> dict[str, Mark]:
    """A mark for each cohort; the first 49 differ."""
    marks = {}
    for index, cohort in enumerate(cohorts):
        marker, glyph = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        marks[cohort] = Mark(COLOURS[index % len(COLOURS)], marker, glyph)
    return marks


def report_style() -> AbstractContextManager[None]:
    """The style under which figures are made and turned into SVG; outside it nothing changes."""
    return matplotlib.rc_context(_STYLE)


def new_axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure of `width` by `height` inches with one titled pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title("\n".join(textwrap.wrap(title, int(LETTERS_PER_INCH * width))))
    return figure, axes


def to_svg(figure: Figure, name: str, description: str, tips: Mapping[str, str] | None = None) -> str:
    """`figure` as an inline SVG element without references to anything outside it.

    Every id begins with `name`, so that figures on one page never share one. `tips` maps the gid of an artist to the
    text shown when the pointer rests on it.
    """
    buffer = io.StringIO()
    figure.patch.set_facecolor("none")
    canvas: Any = FigureCanvasSVG(figure)  # figure.savefig would draw everything once more to find the layout
    canvas.print_svg(buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    view_box = re.search(r'viewBox="([^"]+)"', text)
    body = text[text.index(">", text.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    for gid, tip in (tips or {}).items():
        body = body.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{html.escape(tip)}</title>', 1)
    # Only in tags: text between them may come from a device and may look like an attribute.
    body = re.sub(r"<[^>]+>", lambda tag: _localised(tag[0], name), body)
    attributes = f'class="plot" id="{name}" viewBox="{view_box[1] if view_box else ""}"'
    if view_box:
        attributes += f' style="{size_limits(float(view_box[1].split()[2]), TICK_SIZE)}"'
    return f'<svg {attributes} role="img" aria-label="{html.escape(description)}">{body.strip()}'


def size_limits(width: float, smallest: float) -> str:
    """CSS for a drawing of this width whose smallest text has this size, in the same unit."""
    return f"min-width:{math.ceil(width * SMALLEST_TEXT / smallest)}px;max-width:{width * MOST_ENLARGED:.0f}px"


def _localised(tag: str, name: str) -> str:
    tag = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", tag).replace("xlink:href=", "href=")
    tag = re.sub(r'\bid="', f'id="{name}-', tag)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", tag)


def percent_axis(axes: Axes) -> None:
    """Shares on the vertical axis, in percent and no further than 0 and 100."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.02))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(percent_tick))


def percent_tick(value: float, _: int | None) -> str:
    """A share as an axis shows it."""
    return f"{100 * value:g} %"


def round_axis(axes: Axes) -> None:
    """Rounds on the horizontal axis."""
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
