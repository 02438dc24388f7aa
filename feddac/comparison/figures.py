"""The plots of a comparison, in the look of the run report."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.wording import count, duration, percent, size
from feddac.comparison.collect import CellResult, MethodResult
from feddac.comparison.tables import title_of, with_deviation
from server.report.drawing import SOFT_INK, Mark, new_axes, percent_axis, percent_tick, report_style, round_axis, to_svg
from server.report.pace import hours_axis

Marks: TypeAlias = Mapping[str, Mark]

PANELS_PER_ROW = 3
COSTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("macs", "MACs, mean over devices", count),
    ("device_macs_per_round", "MACs per device and round", count),
    ("peak_memory_bytes", "peak memory, mean over devices", size),
    ("bytes", "bytes of all messages", size),
    ("simulated_seconds", "simulated time of all rounds", duration),
)
"""What accuracy is drawn against: fields of Outcome."""

_PANEL = (4.2, 3.1)
# Any, because each of them has a type of its own.
_ERROR_BARS: dict[str, Any] = {"capsize": 3, "elinewidth": 1.1, "capthick": 1.1}


def overview(results: Sequence[CellResult], marks: Marks) -> Figure:
    """Accuracy of every method: along the axis of the grid that is a number, else one panel per cell.

    Bars are one standard deviation over seeds to either side. Call it under `report_style`.
    """
    axis = _numeric_axis(results)
    panels = _along(results, axis) if axis else [(title_of(one.cell), [one]) for one in results]
    columns = min(PANELS_PER_ROW, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = _PANEL[1] if axis else 1.2 + 0.34 * len(marks)
    figure = Figure(figsize=(_PANEL[0] * columns, height * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for position, (title, cells) in enumerate(panels):
        axes = grid[position // columns][position % columns]
        axes.set_title(title)
        if axis:
            _lines(axes, cells, axis, marks)
        else:
            _dots(axes, cells[0], marks)
    for position in range(len(panels), rows * columns):
        grid[position // columns][position % columns].set_visible(False)
    if axis:
        handles, names = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 3 * columns), frameon=False)
    return figure


def costs(results: Sequence[CellResult], marks: Marks) -> Figure:
    """Accuracy of every method against each cost, a panel for each, cell after cell. Call it under `report_style`."""
    per_cell = math.ceil(len(COSTS) / PANELS_PER_ROW)
    size = (_PANEL[0] * PANELS_PER_ROW, _PANEL[1] * per_cell * len(results) + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(per_cell * len(results), PANELS_PER_ROW, squeeze=False)
    for number, result in enumerate(results):
        places = grid[per_cell * number : per_cell * (number + 1)].ravel()
        for axes, (measure, title, words) in zip(places, COSTS, strict=False):
            axes.set_title(title if len(results) == 1 else f"{title}\n{title_of(result.cell)}")
            for method in _costing(result, measure):
                _point(axes, method, marks[method.name], measure)
            _cost_axes(axes, words)
        for axes in places[len(COSTS) :]:
            axes.set_visible(False)
    handles = [Line2D([], [], label=name, **_look(mark)) for name, mark in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False)
    return figure


def standalone_svg(
    figure: Callable[[Sequence[CellResult], Marks], Figure], results: Sequence[CellResult], marks: Marks
) -> str:
    """`overview` or `costs` as a file of its own; the same bytes whenever it is drawn from the same results."""
    buffer = io.StringIO()
    with report_style():
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure(results, marks).savefig(buffer, format="svg", metadata=metadata, facecolor="white")
    return buffer.getvalue()


def overview_panel(results: Sequence[CellResult], marks: Marks) -> str:
    """The overview for the page."""
    return to_svg(overview(results, marks), "overview", "Accuracy of every method in every cell")


def cell_panels(result: CellResult, number: int, marks: Marks) -> list[str]:
    """Accuracy after each round, over simulated time, and against each cost, of one cell; none if no run is finished.

    A cost that no run recorded has no panel.
    """
    panels = []
    if any(method.curve for method in result.methods):
        panels.append(_curves(result, number, marks))
    if any(math.isfinite(seconds) and seconds for method in result.methods for *_, seconds in method.curve):
        panels.append(_over_time(result, number, marks))
    for measure, title, words in COSTS:
        if any(math.isfinite(method.spreads[measure].mean) for method in result.methods if method.outcomes):
            panels.append(_costs(result, f"costs-{measure.replace('_', '-')}-{number}", marks, measure, title, words))
    return panels


def _curves(result: CellResult, number: int, marks: Marks) -> str:
    figure, axes = new_axes(4.2, 2.8, "Accuracy after each round")
    tips: dict[str, str] = {}
    for method in result.methods:
        if not method.curve:
            continue
        rounds, means, deviations, _ = (list(column) for column in zip(*method.curve, strict=True))
        tips |= _line(axes, method, marks[method.name], rounds, means)
        if all(math.isfinite(one) for one in deviations):
            low = [mean - deviation for mean, deviation in zip(means, deviations, strict=True)]
            high = [mean + deviation for mean, deviation in zip(means, deviations, strict=True)]
            axes.fill_between(rounds, low, high, color=marks[method.name].colour, alpha=0.15, linewidth=0)
    percent_axis(axes)
    round_axis(axes)
    return to_svg(figure, f"curves-{number}", f"Accuracy after each round, {title_of(result.cell)}", tips)


def _over_time(result: CellResult, number: int, marks: Marks) -> str:
    figure, axes = new_axes(4.2, 2.8, "Accuracy over simulated time")
    tips: dict[str, str] = {}
    for method in result.methods:
        known = [(seconds / 3600, mean) for _, mean, _, seconds in method.curve if math.isfinite(seconds)]
        if known:
            hours, means = (list(column) for column in zip(*known, strict=True))
            tips |= _line(axes, method, marks[method.name], hours, means)
    percent_axis(axes)
    hours_axis(axes)
    return to_svg(figure, f"pace-{number}", f"Accuracy over simulated time, {title_of(result.cell)}", tips)


def _line(axes: Axes, method: MethodResult, mark: Mark, across: list[float], means: list[float]) -> dict[str, str]:
    """Draw a method's line; returns the tip that belongs to it."""
    every = max(1, len(means) // 12)
    (line,) = axes.plot(across, means, color=mark.colour, marker=mark.marker, markevery=every, zorder=3)
    line.set_gid(f"curve-{method.name}")
    return {f"curve-{method.name}": f"{method.name}: {percent(means[-1])} at the end"}


def _costs(result: CellResult, name: str, marks: Marks, measure: str, title: str, words: Callable[[float], str]) -> str:
    figure, axes = new_axes(4.2, 2.8, f"Accuracy against {title}")
    tips = {}
    for method in _costing(result, measure):
        _point(axes, method, marks[method.name], measure)
        accuracy, cost = method.spreads["fleet_accuracy"], method.spreads[measure].mean
        tips[f"point-{method.name}"] = f"{method.name}: {with_deviation(accuracy, percent)}, {words(cost)}"
    _cost_axes(axes, words)
    return to_svg(figure, name, f"Accuracy against {title}, {title_of(result.cell)}", tips)


def _costing(result: CellResult, measure: str) -> list[MethodResult]:
    return [one for one in result.methods if one.outcomes and math.isfinite(one.spreads[measure].mean)]


def _point(axes: Axes, method: MethodResult, mark: Mark, measure: str) -> None:
    accuracy, cost = method.spreads["fleet_accuracy"].mean, method.spreads[measure].mean
    bars = axes.errorbar([cost], [accuracy], yerr=_error(method), **_look(mark), **_ERROR_BARS)
    bars.lines[0].set_gid(f"point-{method.name}")


def _cost_axes(axes: Axes, words: Callable[[float], str]) -> None:
    percent_axis(axes)
    axes.margins(x=0.14, y=0.18)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))


def _lines(axes: Axes, cells: Sequence[CellResult], axis: str, marks: Marks) -> None:
    """One line per method; the values of the axis stand at equal distances, for they are mostly powers of two."""
    for name, mark in marks.items():
        known = [
            (place, method)
            for place, cell in enumerate(cells)
            for method in cell.methods
            if method.name == name and method.outcomes
        ]
        axes.errorbar(
            [place for place, _ in known],
            [method.spreads["fleet_accuracy"].mean for _, method in known],
            yerr=[_error(method)[0] for _, method in known],
            label=name,
            **{**_look(mark), "linestyle": "-"},
            **_ERROR_BARS,
        )
    axes.set_xticks(range(len(cells)), [cell.cell.labels[axis] for cell in cells])
    axes.set_xlim(-0.3, len(cells) - 0.7)
    axes.set_xlabel(axis)
    percent_axis(axes)


def _dots(axes: Axes, cell: CellResult, marks: Marks) -> None:
    """One line of dots per method: light ones are seeds, the dark one is their mean."""
    for row, method in enumerate(cell.methods):
        mark = marks[method.name]
        seeds = [one.fleet_accuracy for one in method.outcomes]
        axes.scatter(seeds, [row] * len(seeds), s=26, color=mark.colour, alpha=0.45, linewidths=0)
        if seeds:
            axes.errorbar(
                [method.spreads["fleet_accuracy"].mean],
                [row],
                xerr=_error(method),
                **_look(mark),
                **_ERROR_BARS,
                zorder=3,
            )
    names = [method.name for method in cell.methods]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", labelcolor=SOFT_INK, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(percent_tick))
    axes.set_xlabel("accuracy, mean over all devices")


def _look(mark: Mark) -> dict[str, Any]:
    return {"color": mark.colour, "marker": mark.marker, "linestyle": "none"}


def _error(method: MethodResult) -> list[float]:
    deviation = method.spreads["fleet_accuracy"].deviation
    return [0.0 if math.isnan(deviation) else deviation]


def _numeric_axis(results: Sequence[CellResult]) -> str:
    """The axis of the grid whose labels are all numbers, the one with most values; empty if there is none."""
    labels: dict[str, dict[str, None]] = {}
    for one in results:
        for axis, label in one.cell.labels.items():
            labels.setdefault(axis, {})[label] = None
    numeric = [axis for axis, found in labels.items() if len(found) > 1 and all(map(_is_number, found))]
    return max(numeric, key=lambda axis: len(labels[axis]), default="")


def _along(results: Sequence[CellResult], axis: str) -> list[tuple[str, list[CellResult]]]:
    """A panel per combination of the other axes: its title, and its cells in the order of `axis`."""
    panels: dict[str, list[CellResult]] = {}
    for one in results:
        others = ", ".join(f"{other} {label}" for other, label in one.cell.labels.items() if other != axis)
        panels.setdefault(others or "accuracy, mean over all devices", []).append(one)
    return [(title, sorted(cells, key=lambda one: float(one.cell.labels[axis]))) for title, cells in panels.items()]


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False
