"""The report's round timeline: a lane per device, a column per round, and in each cell what became of the device.

The figure is written as SVG by hand: thousands of cells stay small, and what devices call themselves needs no font.
"""

import html
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from common.wording import duration, number_of, plural, printable
from server.report.drawing import GRID, INK, SOFT_INK, Mark, size_limits
from server.report.record import Event, Run

MOST_LANES = 60
"""With more devices than this, a lane is a cohort."""

MOST_COLUMNS = 100
"""With more rounds than this, a column is several rounds."""

# Dark enough on white for small marks (4.5 : 1 and more), and apart from each other with colour blindness as in grey.
TROUBLES = {"late": ("#9a6700", "▼"), "failed": ("#cf222e", "✖"), "rejected": ("#6639ba", "◆")}
# Corners of each mark in a square from -1 to 1.
_SHAPES = {
    "late": ((-1, -0.8), (1, -0.8), (0, 1)),
    "rejected": ((0, -1), (1, 0), (0, 1), (-1, 0)),
    "failed": (
        (-0.6, -1), (0, -0.4), (0.6, -1), (1, -0.6), (0.4, 0), (1, 0.6),
        (0.6, 1), (0, 0.4), (-0.6, 1), (-1, 0.6), (-0.4, 0), (-1, -0.6),
    ),
}  # fmt: skip
_TEXT = 11.5
_WIDTH, _LABELS, _RIGHT, _TOP, _ROW = 1080.0, 176.0, 16.0, 30.0, 17.0
_SUMMED_ROW = 30.0  # room for the marks below the bars
_WIDEST_COLUMN = 90.0
_LABEL_CHARACTERS = 24


@dataclass
class Cell:
    """What happened in one lane and column: how often each status, and the seconds of those who trained."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def mean_seconds(self) -> float:
        """NaN where nobody trained."""
        return sum(self.seconds) / len(self.seconds) if self.seconds else math.nan

    @property
    def trouble(self) -> str:
        """The most frequent status other than trained; empty if there is none."""
        return max(TROUBLES, key=lambda status: self.counts[status]) if self.troubled else ""

    @property
    def troubled(self) -> int:
        """How many devices did not train."""
        return sum(self.counts[status] for status in TROUBLES)


@dataclass(frozen=True)
class Timeline:
    """Cells by (lane, column). Lanes are (name, cohort); column c holds the rounds c * step + 1 to (c + 1) * step."""

    lanes: tuple[tuple[str, str], ...]
    columns: int
    step: int
    by_cohort: bool
    hidden_lanes: int
    cells: Mapping[tuple[int, int], Cell]
    counts: Counter[str]

    @property
    def summed(self) -> bool:
        """Whether a cell is more than one device in one round."""
        return self.by_cohort or self.step > 1

    @property
    def row_height(self) -> float:
        """Of one lane, in the figure's units."""
        return _SUMMED_ROW if self.summed else _ROW


def timeline_of(run: Run) -> Timeline:
    """The timeline of `run`, with cohorts for lanes and several rounds to a column where there are too many."""
    events = [event for event in run.device_events if number_of(event.get("round")) >= 1]
    rounds = int(max((number_of(event["round"]) for event in events), default=0))
    step = max(1, math.ceil(rounds / MOST_COLUMNS))
    devices = _devices(run, events)
    by_cohort = len(devices) > MOST_LANES
    lanes = list(dict.fromkeys((cohort, cohort) for _, cohort in devices)) if by_cohort else devices
    shown = {name: position for position, (name, _) in enumerate(lanes[:MOST_LANES])}
    cells: dict[tuple[int, int], Cell] = {}
    counts: Counter[str] = Counter()
    for event in events:
        status = str(event.get("status"))
        counts[status] += 1
        lane = shown.get(str(event.get("cohort" if by_cohort else "device")))
        if lane is None:
            continue
        cell = cells.setdefault((lane, (int(event["round"]) - 1) // step), Cell())
        cell.counts[status] += 1
        seconds = number_of(event.get("seconds"))
        if status == "trained" and math.isfinite(seconds):
            cell.seconds.append(seconds)
    return Timeline(
        tuple(lanes[:MOST_LANES]),
        math.ceil(rounds / step),
        step,
        by_cohort,
        max(0, len(lanes) - MOST_LANES),
        cells,
        counts,
    )


def draw(timeline: Timeline, marks: Mapping[str, Mark]) -> str:
    """The timeline as an inline SVG element; empty if no device was ever asked to train."""
    if not timeline.cells:
        return ""
    width = min(_WIDEST_COLUMN, (_WIDTH - _LABELS - _RIGHT) / timeline.columns)
    row = timeline.row_height
    height = _TOP + row * len(timeline.lanes) + 4
    longest = max((cell.mean_seconds for cell in timeline.cells.values() if cell.seconds), default=1.0) or 1.0
    colours = {cohort: mark.colour for cohort, mark in marks.items()}
    parts = [
        f'<svg class="plot" id="timeline" viewBox="0 0 {_WIDTH:g} {height:g}" role="img" '
        f'aria-label="{html.escape(described(timeline))}" font-size="{_TEXT}" style="{size_limits(_WIDTH, _TEXT)}">',
        *_frame(timeline, width, height, colours),
    ]
    for (lane, column), cell in timeline.cells.items():
        x, y = _LABELS + column * width, _TOP + lane * row
        parts.append(f"<g><title>{html.escape(_tip(timeline, lane, column, cell))}</title>")
        if cell.seconds:
            length = max(1.5, (width - 2) * cell.mean_seconds / longest)
            colour = colours.get(timeline.lanes[lane][1], SOFT_INK)
            parts.append(_rectangle(x + 1, y + 3, length, _ROW - 6, colour))
        if cell.trouble:
            # of several devices the area of the mark is the share that did not train
            share = cell.troubled / cell.counts.total() if timeline.summed else 1.0
            radius = max(2.2, min(5.0, 0.48 * width) * math.sqrt(share))
            parts.append(_mark(cell.trouble, x + min(width / 2, 9.0), y + row - _ROW / 2, radius))
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def described(timeline: Timeline) -> str:
    """What the figure shows, in words, for those who do not see it."""
    lanes = plural(len(timeline.lanes), "cohort" if timeline.by_cohort else "device")
    statuses = ", ".join(f"{timeline.counts[status]} {status}" for status in ("trained", *TROUBLES))
    rounds = plural(timeline.columns, "round")
    if timeline.step > 1:
        rounds = f"{timeline.columns} groups of {timeline.step} rounds"
    return f"Timeline of {lanes} over {rounds}: {statuses}"


def _devices(run: Run, events: list[Event]) -> list[tuple[str, str]]:
    """(device, cohort) of all that are known, cohort by cohort; a device that changed cohorts has its last one."""
    found = {entry.name: entry.cohort for entry in run.budgets}
    found |= {str(event.get("device")): str(event.get("cohort")) for event in events}
    order = {cohort.name: position for position, cohort in enumerate(run.cohorts)}
    return sorted(found.items(), key=lambda pair: (order.get(pair[1], len(order)), pair[1]))


def _frame(timeline: Timeline, width: float, height: float, colours: Mapping[str, str]) -> Iterator[str]:
    """Lanes with their names, and columns with the numbers of some rounds."""
    right = _LABELS + width * timeline.columns
    every = _tick_distance(timeline.columns, width)
    for column in range(timeline.columns):
        first = column * timeline.step + 1
        if column == 0 or (column + 1) % every == 0:
            x = _LABELS + (column + 0.5) * width
            label = str(first) if timeline.step == 1 else f"{first}-{first + timeline.step - 1}"
            yield _text(x, _TOP - 8, label, SOFT_INK, "middle")
    yield _text(10, _TOP - 8, "round", SOFT_INK)
    cohort = ""
    for lane, (name, own) in enumerate(timeline.lanes):
        y = _TOP + lane * timeline.row_height
        strength = "1.4" if lane and own != cohort else "0.6"  # a stronger line where the next cohort begins
        yield f'<path d="M0 {y:g}H{right:g}" stroke="{GRID}" stroke-width="{strength}"/>'
        yield _rectangle(0, y + 4, 4, _ROW - 8, colours.get(own, SOFT_INK))
        yield _text(10, y + 12.5, printable(name, _LABEL_CHARACTERS), INK)
        cohort = own
    for column in range(0, timeline.columns + 1, max(1, every)):
        x = _LABELS + column * width
        yield f'<path d="M{x:.1f} {_TOP:g}V{height - 4:g}" stroke="{GRID}" stroke-width="0.6"/>'


def _tick_distance(columns: int, width: float) -> int:
    """Every how many columns a number fits: 1, 5, 10, 20, ..."""
    return next(step for step in (1, 5, 10, 20, 50, 100) if step * width >= 26 or step >= columns)


def _tip(timeline: Timeline, lane: int, column: int, cell: Cell) -> str:
    first = column * timeline.step + 1
    rounds = f"round {first}" if timeline.step == 1 else f"rounds {first} to {first + timeline.step - 1}"
    several = timeline.summed
    words = [f"{cell.counts[status]} {status}" if several else status for status in cell.counts]
    if cell.seconds:
        words.append(duration(cell.mean_seconds) + (" on average" if several else ""))
    return f"{printable(timeline.lanes[lane][0], 60)}, {rounds}: {', '.join(words)}"


def _mark(status: str, x: float, y: float, radius: float) -> str:
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in _SHAPES[status])
    # the white edge keeps the mark apart from a bar beneath it
    return f'<polygon points="{points}" fill="{TROUBLES[status][0]}" stroke="#fff" stroke-width="0.8"/>'


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{html.escape(text)}</text>'
