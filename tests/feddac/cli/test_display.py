"""What is printed: short lines off a terminal, bars on one, and the table of results."""

import io
import math
from pathlib import Path

from rich.console import Console

from common.wording import MISSING
from feddac.cli.display import Lines, print_result, quiet, result_table, show_progress
from server.report.record import Cohort, read_run
from tests.server.report.fake_run import write_fake_run


def output_of(terminal: bool) -> str:
    stream = io.StringIO()
    with show_progress(Console(file=stream, force_terminal=terminal, width=120)) as progress:
        progress.start("handshake", 0)
        progress.finish("handshake", "no devices")
        progress.start("search", 40)
        for step in range(40):
            progress.advance("search", 1, f"step {step}")
        progress.note("device-03 was [bold]rejected[/bold]\x1b[2J: NaN")
        progress.finish("search", "5 architectures")
    return stream.getvalue()


def test_lines_are_few_and_plain() -> None:
    lines = output_of(terminal=False).splitlines()
    assert lines[:4] == [
        "handshake: started",
        "handshake: no devices",
        "search: started, 40 to do",
        "search 4/40: step 3",
    ]
    assert [line for line in lines if line.startswith("search ")] == [
        f"search {4 * tenth}/40: step {4 * tenth - 1}" for tenth in range(1, 11)
    ]
    assert lines[-2:] == ["note: device-03 was [bold]rejected[/bold] [2J: NaN", "search: 5 architectures"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def timed() -> tuple[Lines, Clock, io.StringIO]:
    stream, clock = io.StringIO(), Clock()
    return Lines(Console(file=stream, width=200), clock), clock, stream


def test_lines_say_how_much_time_is_left() -> None:
    lines, clock, stream = timed()
    lines.start("rounds", 10)
    for number in range(1, 4):
        clock.now += 6.0
        lines.advance("rounds", 1, f"round {number}")
    assert stream.getvalue().splitlines() == [
        "rounds: started, 10 to do",
        "rounds 1/10, about 54 s left: round 1",
        "rounds 2/10, about 48 s left: round 2",
        "rounds 3/10, about 42 s left: round 3",
    ]


def test_what_a_resumed_run_had_done_before_does_not_count_for_its_speed() -> None:
    lines, clock, stream = timed()
    lines.start("rounds", 20)
    lines.advance("rounds", 18, "18 rounds are done")
    clock.now += 30.0
    lines.advance("rounds", 1, "round 19")
    assert stream.getvalue().splitlines()[-1] == "rounds 19/20, about 30 s left: round 19"


def test_between_tenths_there_is_a_line_when_there_is_news_after_a_while() -> None:
    lines, clock, stream = timed()
    lines.start("search", 2)
    for epoch in range(1, 7):
        clock.now += 2.0
        lines.advance("search", 0, f"epoch {epoch}")
    assert stream.getvalue().splitlines()[1:] == ["search 0/2: epoch 3", "search 0/2: epoch 6"]


def test_a_stage_in_which_nothing_happens_says_that_it_goes_on() -> None:
    lines, clock, stream = timed()
    lines.start("search", 2)
    lines.advance("search", 0, "epoch 1")
    for _ in range(34):
        clock.now += 1.0
        lines.beat()
    assert stream.getvalue().splitlines()[1:] == [
        "search 0/2: goes on since 15 s; last: epoch 1",
        "search 0/2: goes on since 30 s; last: epoch 1",
    ]
    lines.finish("search", "done")
    clock.now += 100.0
    lines.beat()
    assert stream.getvalue().splitlines()[-1] == "search: done"


def test_quiet_is_silent() -> None:
    stream = io.StringIO()
    with quiet(True), show_progress(Console(file=stream)) as progress:
        progress.start("rounds", 1)
        progress.note("nobody sees this")
    assert stream.getvalue() == ""


def test_bars_on_a_terminal() -> None:
    text = output_of(terminal=True)
    assert "40/40" in text
    assert "5 architectures" in text
    assert "[bold]rejected[/bold] [2J" in text  # Foreign text neither colours nor clears the screen.


def test_a_stage_may_begin_again_when_a_run_is_resumed() -> None:
    stream = io.StringIO()
    with show_progress(Console(file=stream, force_terminal=True, width=120)) as progress:
        for _ in range(2):
            progress.start("rounds", 2)
            progress.advance("rounds", 1, "round 1")
        progress.finish("rounds", "done")
    assert "2/2" in stream.getvalue()


def test_result_table() -> None:
    cohorts = [
        Cohort("cohort-0", 3, 2.49e6, 31_000.0, 98_304.0, 0.942, 0.95, 1.45e9, 1.2e6, 0.7e6),
        Cohort("cohort-1", 1, 3.0e6, 62_000.0, 131_072.0, math.nan, math.nan, math.nan, 0.0, 0.0),
    ]
    stream = io.StringIO()
    Console(file=stream, width=120).print(result_table(cohorts))
    rows = stream.getvalue().splitlines()
    [first] = [row for row in rows if "cohort-0" in row]
    for figure in ("3", "2.49 M", "31.0 k", "98.3 kB", "94.2 %", "1.45 G", "1.20 MB", "700 kB"):
        assert figure in first
    [second] = [row for row in rows if "cohort-1" in row]
    assert MISSING in second
    assert "on own" not in stream.getvalue()


def test_own_accuracy_stands_beside_test_accuracy_in_eighty_columns(tmp_path: Path) -> None:
    run = read_run(write_fake_run(tmp_path / "run", cohorts=2, devices=4, rounds=2))
    stream = io.StringIO()
    print_result(Console(file=stream, width=80), run)
    text = stream.getvalue()
    first, *_ = [row for row in text.splitlines() if "cohort-0" in row]
    # of devices 0 and 2, 9 of 9 and 9 of 11 images
    assert f"{run.cohorts[0].test_accuracy:.1%}".replace("%", " %") + " 90.9 %" in first
    assert all(len(row) <= 80 for row in text.splitlines()[:-2])
    assert "cohort-0:   microcontroller (0, 2)\ncohort-1:   large-microcontroller (1, 3)\n" in text
    assert "…" not in text
    mean = (1 + 7 / 10 + 9 / 11 + 11 / 12) / 4
    assert (
        f"Own images: {100 * mean:.1f} % as the mean over 4 devices, on 42 images that nobody trained on; "
        "lowest 70.0 % on 1"
    ) in text
