"""The report's figures. Each function returns SVG panels; it returns none when the run recorded nothing to show."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import TypeAlias

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from common.wording import count, duration, percent, printable, size
from server.report.drawing import INK, SOFT_INK, TICK_SIZE, Mark, new_axes, percent_axis, round_axis, to_svg
from server.report.record import Event, Run, of_cohort, series

Marks: TypeAlias = Mapping[str, Mark]
Words: TypeAlias = Callable[[float], str]
HALF = (4.2, 2.8)
THIRD = (3.7, 3.0)
# White to the palette's blue, a little darker at the end: one hue, so that it reads the same in grey.
_SHARE = LinearSegmentedColormap.from_list("share", ["#f3f8fc", "#7fb4d9", "#0072B2", "#004a75"])


def accuracy_panels(run: Run, marks: Marks) -> list[str]:
    """Accuracy and loss of every cohort's model after each round; round 0 is before training."""
    panels = []
    if _any_number(run.evaluations, "test_accuracy", "validation_accuracy"):
        figure, axes = new_axes(*HALF, "Accuracy")
        for cohort, mark in marks.items():
            rounds, test, validation = series(
                of_cohort(run.evaluations, cohort), "round", "test_accuracy", "validation_accuracy"
            )
            every = max(1, len(rounds) // 12)
            (line,) = axes.plot(rounds, test, color=mark.colour, marker=mark.marker, markevery=every, zorder=3)
            line.set_gid(f"test-{cohort}")
            axes.plot(rounds, validation, color=mark.colour, linestyle=(0, (4, 2)), linewidth=1.3)
        percent_axis(axes)
        round_axis(axes)
        tips = {f"test-{each.name}": f"{each.name}: {percent(each.test_accuracy)} at the end" for each in run.cohorts}
        panels.append(to_svg(figure, "accuracy", "Accuracy of each cohort after each round", tips))
    if _any_number(run.evaluations, "loss"):
        figure, axes = new_axes(*HALF, "Test loss")
        for cohort, mark in marks.items():
            rounds, loss = series(of_cohort(run.evaluations, cohort), "round", "loss")
            axes.plot(rounds, loss, color=mark.colour, marker=mark.marker, markevery=max(1, len(rounds) // 12))
        axes.set_ylim(bottom=0)
        round_axis(axes)
        panels.append(to_svg(figure, "loss", "Test loss of each cohort after each round"))
    return panels


def cost_panels(run: Run, marks: Marks) -> list[str]:
    """Accuracy against MACs, parameters and peak memory: one point per cohort, its area grows with the devices."""
    panels = []
    for key, title, words in (
        ("macs", "MACs", count),
        ("params", "parameters", count),
        ("peak_memory_bytes", "peak memory", size),
    ):
        points = [
            each for each in run.cohorts if math.isfinite(getattr(each, key)) and math.isfinite(each.test_accuracy)
        ]
        if not points:
            continue
        figure, axes = new_axes(*THIRD, f"Accuracy against {title}")
        most = max(each.devices for each in points) or 1
        for each in points:
            mark, cost = marks[each.name], getattr(each, key)
            dots = axes.scatter(
                [cost],
                [each.test_accuracy],
                s=45 + 160 * each.devices / most,
                color=mark.colour,
                marker=mark.marker,
                edgecolors="white",
                linewidths=1.2,
                zorder=3,
            )
            dots.set_gid(f"point-{each.name}")
        _cost_axis(axes, [getattr(each, key) for each in points], words)
        axes.margins(x=0.14, y=0.18)
        percent_axis(axes)
        tips = {
            f"point-{each.name}": f"{each.name}: {percent(each.test_accuracy)}, {words(getattr(each, key))}, "
            f"devices: {each.devices}"
            for each in points
        }
        name = f"cost-{key.replace('_', '-')}"
        panels.append(to_svg(figure, name, f"Accuracy of each cohort against {title}", tips))
    return panels


def channel_panels(run: Run, marks: Marks) -> list[str]:
    """Share of the base network's channels that each cohort keeps, block by block, with the number kept."""
    cohorts = [cohort for cohort in marks if run.channels.get(cohort)]
    if not cohorts:
        return []
    groups = list(run.channels[cohorts[0]])
    shares = [[_share(run.channels[cohort].get(group)) for group in groups] for cohort in cohorts]
    width = max(4.5, 1.4 + 0.5 * len(groups))
    figure, axes = new_axes(width, 1.0 + 0.34 * len(cohorts), "Channels kept, of the base network's")
    axes.pcolormesh(shares, cmap=_SHARE, vmin=0, vmax=1, edgecolors="white", linewidth=1.5)
    tips = {}
    for row, cohort in enumerate(cohorts):
        for column, group in enumerate(groups):
            share = shares[row][column]
            if not math.isfinite(share):
                continue
            kept, whole = run.channels[cohort][group]
            gid = f"cell-{row}-{column}"
            axes.text(
                column + 0.5,
                row + 0.5,
                str(kept),
                ha="center",
                va="center",
                fontsize=TICK_SIZE,
                color=_readable_on(share),
            ).set_gid(gid)
            tips[gid] = f"{cohort}, {printable(group, 40)}: {kept} of {whole} channels ({percent(share)})"
    wholes = [max(run.channels[cohort][group][1] for cohort in cohorts) for group in groups]
    labels = [f"{printable(short, 12)}\n{whole}" for short, whole in zip(_short(groups), wholes, strict=True)]
    axes.set_xticks([index + 0.5 for index in range(len(groups))], labels)
    axes.set_yticks([index + 0.5 for index in range(len(cohorts))], cohorts)
    for label, cohort in zip(axes.get_yticklabels(), cohorts, strict=True):
        label.set_color(marks[cohort].colour)
        label.set_fontweight("bold")
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("block, and the channels of the base network")
    return [to_svg(figure, "channels", "Channels kept per block and cohort", tips)]


def search_panels(run: Run, marks: Marks) -> list[str]:
    """The search's path: what the network cost and how good it was after each epoch, and where cohorts left it."""
    if not run.search_events:
        return []
    panels = []
    epochs, accuracy, macs = series(run.search_events, "epoch", "validation_accuracy", "macs")
    if any(map(math.isfinite, macs)):
        figure, axes = new_axes(*THIRD, "MACs per image")
        tips = {}
        for each in run.cohorts:
            if math.isfinite(each.macs):
                line = axes.axhline(each.macs, color=marks[each.name].colour, linewidth=1.2, linestyle=(0, (4, 2)))
                line.set_gid(f"level-{each.name}")
                tips[f"level-{each.name}"] = f"{each.name}: {count(each.macs)} MACs"
        axes.plot(*_broken(epochs, macs), color=INK, zorder=3)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(_ticks(count))
        _epoch_axis(axes)
        panels.append(to_svg(figure, "search-macs", "MACs of the searched network after each epoch", tips))
    if any(map(math.isfinite, accuracy)):
        figure, axes = new_axes(*THIRD, "Validation accuracy")
        axes.plot(*_broken(epochs, accuracy), color=INK)
        percent_axis(axes)
        _epoch_axis(axes)
        panels.append(to_svg(figure, "search-accuracy", "Validation accuracy of the searched network after each epoch"))
    if any(math.isfinite(a) and math.isfinite(b) for a, b in zip(accuracy, macs, strict=True)):
        figure, axes = new_axes(*THIRD, "Validation accuracy against MACs")
        axes.plot(macs, accuracy, color=SOFT_INK, linewidth=1.1, marker="o", markersize=2.6)
        for each in run.cohorts:
            if math.isfinite(each.macs):
                axes.axvline(each.macs, color=marks[each.name].colour, linewidth=1.2, linestyle=(0, (4, 2)))
        _cost_axis(axes, macs, count)
        percent_axis(axes)
        panels.append(to_svg(figure, "search-front", "Validation accuracy against MACs along the search"))
    return panels


def traffic_panels(run: Run, marks: Marks) -> list[str]:
    """Bytes of every round, and seconds of every round and stage."""
    panels = []
    if run.stages:
        figure, axes = new_axes(*THIRD, "Time of each stage")
        names, seconds = list(run.stages), list(run.stages.values())
        bars = axes.barh(names, seconds, color="#8c959f", height=0.62)
        axes.bar_label(bars, [duration(each) for each in seconds], padding=4, color=SOFT_INK, fontsize=TICK_SIZE)
        axes.invert_yaxis()
        axes.margins(x=0.28)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(False, axis="y")
        panels.append(to_svg(figure, "stages", "Seconds of each stage"))
    if _any_number(run.round_events, "seconds"):
        figure, axes = new_axes(*THIRD, "Time of each round")
        for cohort, mark in marks.items():
            rounds, seconds = series(of_cohort(run.round_events, cohort), "round", "seconds")
            axes.plot(rounds, seconds, color=mark.colour, marker=mark.marker, markevery=max(1, len(rounds) // 8))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
        round_axis(axes)
        panels.append(to_svg(figure, "round-seconds", "Seconds of each round and cohort"))
    if _any_number(run.step_events, "bytes_down", "bytes_up"):
        figure, axes = new_axes(*THIRD, "Bytes moved in each round")
        base: dict[float, float] = {}
        tips = {}
        for cohort, mark in marks.items():
            rounds, moved = _bytes_per_round(of_cohort(run.step_events, cohort))
            bars = axes.bar(
                rounds, moved, bottom=[base.get(each, 0.0) for each in rounds], color=mark.colour, width=0.8
            )
            for number, amount, bar in zip(rounds, moved, bars, strict=True):
                base[number] = base.get(number, 0.0) + amount
                bar.set_gid(f"bar-{cohort}-{number:g}")
                tips[f"bar-{cohort}-{number:g}"] = f"{cohort}, round {number:g}: {size(amount)}"
        axes.yaxis.set_major_formatter(_ticks(size))
        axes.grid(False, axis="x")
        round_axis(axes)
        panels.append(to_svg(figure, "round-bytes", "Bytes of each round, cohorts stacked", tips))
    return panels


def _bytes_per_round(events: Sequence[Event]) -> tuple[list[float], list[float]]:
    """Rounds, and the bytes that all steps of each moved in both directions."""
    moved: dict[float, float] = {}
    for number, down, up in zip(*series(events, "round", "bytes_down", "bytes_up"), strict=True):
        moved[number] = moved.get(number, 0.0) + sum(each for each in (down, up) if math.isfinite(each))
    return list(moved), list(moved.values())


def _any_number(events: Sequence[Event], *keys: str) -> bool:
    return any(math.isfinite(value) for values in series(events, *keys) for value in values)


def _share(channels: tuple[int, int] | None) -> float:
    return channels[0] / channels[1] if channels and channels[1] else math.nan


def _readable_on(share: float) -> str:
    """White or ink, whichever contrasts more with the cell (relative luminance of WCAG 2, where they tie at 0.18)."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(_SHARE(share))
    ]
    return "white" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.18 else INK


def _short(groups: Sequence[str]) -> list[str]:
    """The names without what all of them begin and end with.

    >>> _short(["block2.inner", "block17.inner"])
    ['2', '17']
    """
    if len(groups) < 2:
        return list(groups)
    begin = _common(groups)
    rest = [group.removeprefix(begin) for group in groups]
    end = _common([group[::-1] for group in rest])[::-1]
    shortened = [group.removesuffix(end) for group in rest]
    return shortened if all(shortened) else list(groups)


def _common(names: Sequence[str]) -> str:
    """What all names begin with."""
    return "".join(one[0] for one in takewhile(lambda one: len(set(one)) == 1, zip(*names, strict=False)))


def _broken(xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]]:
    """A line that is interrupted where the epochs begin anew, as they do when the search branches."""
    broken_xs: list[float] = []
    broken_ys: list[float] = []
    for x, y in zip(xs, ys, strict=True):
        if broken_xs and x <= broken_xs[-1]:
            broken_xs.append(math.nan)
            broken_ys.append(math.nan)
        broken_xs.append(x)
        broken_ys.append(y)
    return broken_xs, broken_ys


def _epoch_axis(axes: Axes) -> None:
    round_axis(axes)
    axes.set_xlabel("epoch of the search")


def _ticks(words: Words) -> FuncFormatter:
    """Tick labels without the zeros that only show precision: 2.00 M -> 2 M."""
    return FuncFormatter(lambda value, _: re.sub(r"\.0+(?!\d)|(\.\d*[1-9])0+(?!\d)", r"\1", words(value)))


def _cost_axis(axes: Axes, values: Sequence[float], words: Words) -> None:
    """Logarithmic with readable ticks if the costs spread widely, else linear."""
    known = [value for value in values if math.isfinite(value) and value > 0]
    if known and max(known) > 8 * min(known):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(_one_two_five(min(known), max(known)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(_ticks(words))


def _one_two_five(low: float, high: float) -> list[float]:
    """Ticks 1, 2, 5, 10, ... between the bounds, thinned to powers of ten when they span more than two decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1,) if last - first > 3 else (1, 3) if last - first > 2 else (1, 2, 5)
    return [
        step * 10.0**power for power in range(first, last + 1) for step in steps if low <= step * 10.0**power <= high
    ]
