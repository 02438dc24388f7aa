import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.wording import MISSING, count, duration, number_of, percent, plain, plural, printable, size


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (6_123_456, "6.12 M"), (999_600, "1.00 M"),
        (123_456, "123 k"), (0.5, "0.5"), (91_154_944, "91.2 M"), (math.nan, MISSING),
    ],
)  # fmt: skip
def test_counts_have_three_digits(value: float, words: str) -> None:
    assert plain(count(value)) == words


def test_sizes_percentages_and_times() -> None:
    figures = [size(262_144), percent(0.9427), duration(112.4), duration(1.94), duration(3725), duration(59.9)]
    assert figures[0] == "262\u202fkB"
    assert list(map(plain, figures)) == [
        "262 kB", "94.3 %", "1 min 52 s", "1.9 s", "1 h 2 min", "1 min",
    ]  # fmt: skip
    assert [size(math.nan), percent(math.nan), duration(math.inf)] == [MISSING] * 3
    assert [plural(1, "round"), plural(1200, "round")] == ["1 round", "1,200 rounds"]


@given(st.floats(min_value=0, max_value=1e17))
def test_counts_never_need_an_exponent_or_a_thousand(value: float) -> None:
    words = count(value)
    if value >= 1:
        assert "e" not in words
        assert float(words.split("\u202f")[0]) < 1000


@pytest.mark.parametrize("value", [None, "3", True, [], float("nan")])
def test_what_is_no_number_is_nan(value: object) -> None:
    assert math.isnan(number_of(value))


@given(st.text(max_size=500))
def test_printable_text_is_short_and_without_control_characters(text: str) -> None:
    shown = printable(text, 40)
    assert shown.isprintable()
    assert len(shown) <= 40
