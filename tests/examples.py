"""What the suite that is always run tries, and what `-m slow` tries: a quarter of a property's examples, or all."""

from typing import Any

import pytest
from hypothesis import settings

_whole = False


def try_all() -> None:
    """From here on, modules that are imported ask for all their examples; so does what names no number."""
    global _whole
    _whole = True
    settings.load_profile("all")


def examples(whole: int) -> int:
    """The number of examples to try of so many."""
    return whole if _whole else max(3, whole // 4)


def slow(*values: Any) -> list[Any]:
    """These values of a parameter, as what only `-m slow` tries; a tuple is the values of several parameters."""
    every = (value if isinstance(value, tuple) else (value,) for value in values)
    return [pytest.param(*each, marks=pytest.mark.slow) for each in every]


settings.register_profile("all", settings())
settings.register_profile("a quarter", max_examples=examples(100))
settings.load_profile("a quarter")
