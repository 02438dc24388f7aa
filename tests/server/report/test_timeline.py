"""The round timeline: what each cell holds, and that it stays readable from four devices to hundreds."""

import re
from pathlib import Path
from typing import Any

import pytest

from server.report.drawing import marks_of
from server.report.record import Run, read_run
from server.report.timeline import MOST_COLUMNS, MOST_LANES, TROUBLES, Timeline, described, draw, timeline_of
from server.run_folder import RunFolder

STATUSES = ("trained", "late", "failed", "rejected")


def run_of(path: Path, events: list[dict[str, Any]]) -> Run:
    with RunFolder.create(path) as folder:
        folder.write_config({"data": "digits"})
        for event in events:
            folder.append("device", reason="", **event)
        for cohort in dict.fromkeys(str(event["cohort"]) for event in events if event["cohort"]):
            folder.append("round", round=1, cohort=cohort, seconds=1.0)
    return read_run(folder)


def event(round: int, device: str, status: str = "trained", seconds: float = 1.0, cohort: str = "cohort-0") -> Any:
    return {"round": round, "device": device, "cohort": cohort, "status": status, "seconds": seconds}


def grid(devices: int, rounds: int, cohorts: int = 2) -> list[dict[str, Any]]:
    """Every device in every round; of every four rounds of a device one ends with each status."""
    return [
        event(number, f"d{device}", STATUSES[(number + device) % 4], 1.0, f"cohort-{device % cohorts}")
        for number in range(1, rounds + 1)
        for device in range(devices)
    ]


def picture(run: Run) -> tuple[Timeline, str]:
    timeline = timeline_of(run)
    return timeline, draw(timeline, marks_of(cohort.name for cohort in run.cohorts))


def test_a_lane_is_a_device_and_a_column_a_round(tmp_path: Path) -> None:
    events = [
        event(1, "a", seconds=2.0),
        event(1, "b", "late", 9.0),
        event(3, "a", "failed"),
        event(3, "b", "rejected"),
    ]
    timeline, svg = picture(run_of(tmp_path / "run", events))
    assert timeline.lanes == (("a", "cohort-0"), ("b", "cohort-0"))
    assert (timeline.columns, timeline.step, timeline.summed) == (3, 1, False)
    assert set(timeline.cells) == {(0, 0), (1, 0), (0, 2), (1, 2)}
    for tip in ("a, round 1: trained, 2.0\u202fs", "b, round 1: late", "a, round 3: failed", "b, round 3: rejected"):
        assert f"<title>{tip}</title>" in svg


def test_each_trouble_has_its_own_shape_and_colour_and_is_told_in_words(tmp_path: Path) -> None:
    timeline, svg = picture(run_of(tmp_path / "run", grid(4, 10)))
    marks = re.findall(r'<polygon points="([^"]+)" fill="([^"]+)"', svg)
    assert len(marks) == 30
    corners = {colour: {len(points.split()) for points, fill in marks if fill == colour} for _, colour in marks}
    assert corners == {TROUBLES["late"][0]: {3}, TROUBLES["rejected"][0]: {4}, TROUBLES["failed"][0]: {12}}
    assert described(timeline) == "Timeline of 4 devices over 10 rounds: 10 trained, 10 late, 10 failed, 10 rejected"
    assert f'role="img" aria-label="{described(timeline)}"' in svg


def test_the_longest_training_fills_its_column_and_others_are_in_proportion(tmp_path: Path) -> None:
    events = [event(1, "a", seconds=8.0), event(2, "a", seconds=4.0), event(3, "a", seconds=2.0), event(4, "a", "late")]
    _, svg = picture(run_of(tmp_path / "run", events))
    longest, half, quarter = [float(width) for width in re.findall(r'<g><title>.*?<rect.*?width="([^"]+)"', svg)]
    assert half == pytest.approx(longest / 2)
    assert quarter == pytest.approx(longest / 4)


def test_fifty_devices_and_a_hundred_rounds_keep_a_lane_and_a_column_each(tmp_path: Path) -> None:
    timeline, svg = picture(run_of(tmp_path / "run", grid(50, 100)))
    assert (len(timeline.lanes), timeline.columns, timeline.summed) == (50, 100, False)
    assert svg.count("<g>") == 5000
    assert len(svg) < 1_500_000
    width = float(re.search(r'viewBox="0 0 (\d+)', svg)[1])  # type: ignore[index]
    assert all(float(x) <= width for x in re.findall(r'\bx="([0-9.]+)"', svg))


def test_more_devices_or_rounds_are_summed(tmp_path: Path) -> None:
    devices, rounds = MOST_LANES + 1, MOST_COLUMNS + 1
    timeline, svg = picture(run_of(tmp_path / "run", grid(devices, rounds, cohorts=3)))
    assert [name for name, _ in timeline.lanes] == ["cohort-0", "cohort-1", "cohort-2"]
    assert (timeline.columns, timeline.step) == (51, 2)
    assert sum(cell.counts.total() for cell in timeline.cells.values()) == devices * rounds
    assert timeline.counts.total() == devices * rounds
    assert re.search(r"<title>cohort-0, rounds 1 to 2: [^<]*\d+ trained[^<]* on average</title>", svg)
    assert described(timeline).startswith("Timeline of 3 cohorts over 51 groups of 2 rounds")


def test_more_cohorts_than_lanes_are_counted_not_drawn(tmp_path: Path) -> None:
    timeline, _ = picture(run_of(tmp_path / "run", grid(MOST_LANES + 5, 1, cohorts=MOST_LANES + 5)))
    assert (len(timeline.lanes), timeline.hidden_lanes) == (MOST_LANES, 5)


def test_a_device_refused_before_the_first_round_has_no_cell(tmp_path: Path) -> None:
    timeline, svg = picture(run_of(tmp_path / "run", [event(0, "weak", "rejected", cohort="")]))
    assert (timeline.cells, svg) == ({}, "")


def test_names_cannot_leave_their_text(tmp_path: Path) -> None:
    _, svg = picture(run_of(tmp_path / "run", [event(1, '</text><script>"x"&')]))
    assert "<script" not in svg
    assert "&lt;/text&gt;" in svg
