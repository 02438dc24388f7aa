"""Two data sets that number the same classes differently are brought together by the names of their classes."""

from collections.abc import Sequence

import pytest
import torch

from common.data.class_names import renumbered
from common.data.images import Images
from common.errors import DataError

RUN = ("cats", "dogs", "owls")


def labels(own: Sequence[str], run: Sequence[str], *given: int) -> list[int]:
    images = Images(torch.zeros(len(given), 1, 2, 2, dtype=torch.uint8), torch.tensor(given))
    return renumbered(images, own, run, "barn").labels.tolist()


def test_a_set_that_lacks_a_class_or_has_them_in_another_order_is_labelled_as_the_run_is() -> None:
    assert labels(("dogs", "owls"), RUN, 0, 1, 1) == [1, 2, 2]
    assert labels(("owls", "cats", "dogs"), RUN, 0, 1, 2) == [2, 0, 1]


def test_the_same_names_in_the_same_order_stay_also_where_two_are_equal() -> None:
    assert labels(("crane", "crane"), ("crane", "crane"), 0, 1) == [0, 1]


def test_letters_and_digits_make_the_name_but_an_exact_one_comes_first() -> None:
    assert labels(("T - shirt / top", "DOGS"), ("dogs", "T-shirt/top"), 0, 1) == [1, 0]
    assert labels(("a-b", "!"), ("ab", "a-b", "!"), 0, 1) == [1, 2]


def test_numbers_are_names_too_but_a_set_whose_classes_are_numbered_is_without_names() -> None:
    assert labels(("3", "7"), tuple("0123456789"), 0, 1) == [3, 7]
    assert labels(("0", "1", "2"), RUN, 0, 2) == [0, 2]


def test_without_the_runs_names_labels_stay() -> None:
    assert labels(("dogs", "owls"), (), 0, 1) == [0, 1]


def test_only_classes_with_images_count() -> None:
    assert labels(("foxes", "owls"), RUN, 1, 1) == [2, 2]


def test_unknown_classes_are_listed_with_those_of_the_run() -> None:
    expected = "barn has images of foxes, mice, but the run's classes are cats, dogs, owls: rename them to these"
    with pytest.raises(DataError, match=f"^{expected}$"):
        labels(("dogs", "foxes", "mice"), RUN, 0, 1, 2)


def test_a_name_that_the_run_has_twice_is_refused() -> None:
    with pytest.raises(DataError, match="images of crane"):
        labels(("crane",), ("crane", "heron", "crane"), 0)


def test_the_line_stays_short_whatever_the_names() -> None:
    with pytest.raises(DataError, match="and 92 more") as caught:
        labels([f"{number:0500}" for number in range(1, 101)], RUN, *range(100))
    assert len(str(caught.value)) < 500
