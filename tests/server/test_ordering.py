"""Answers in canonical order, whoever is fastest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ordering import InOrder


def test_an_early_answer_waits_for_those_before_it_and_no_other_is_held() -> None:
    waiting = InOrder[int](["a", "b", "c"])
    assert list(waiting.settle("c", 3)) == []
    assert list(waiting._early) == ["c"]
    assert list(waiting.settle("a", 1)) == [("a", 1)]
    assert list(waiting.settle("b", None)) == [("c", 3)]
    assert waiting._early == {}
    assert list(waiting.rest()) == []


def test_at_the_end_those_not_heard_of_are_given_up() -> None:
    waiting = InOrder[int](["a", "b", "c", "d"])
    assert list(waiting.settle("d", 4)) == []
    assert list(waiting.settle("b", 2)) == []
    assert list(waiting.rest()) == [("b", 2), ("d", 4)]


def test_a_device_answers_once() -> None:
    waiting = InOrder[int](["a", "b"])
    list(waiting.settle("a", 1))
    with pytest.raises(ValueError, match="settled before"):
        waiting.settle("a", 1)
    waiting.settle("b", None)
    with pytest.raises(ValueError, match="not asked"):
        waiting.settle("stranger", 1)


@given(st.lists(st.sampled_from(["answers", "fails", "is silent"]), max_size=8), st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_who_answers_first_nor_on_who_is_missing(fates: list[str], random: object) -> None:
    names = [f"device-{number}" for number in range(len(fates))]
    arrivals = [(name, fate) for name, fate in zip(names, fates, strict=True) if fate != "is silent"]
    random.shuffle(arrivals)  # type: ignore[attr-defined]
    waiting = InOrder[str](names)
    given_on = [
        one for name, fate in arrivals for one in list(waiting.settle(name, name if fate == "answers" else None))
    ]
    given_on += waiting.rest()
    assert given_on == [(name, name) for name, fate in zip(names, fates, strict=True) if fate == "answers"]
