"""Answers in an order that does not depend on which device was fastest."""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class InOrder(Generic[T]):
    """Gives answers on in the order of `devices`: an early one waits until those before it have come or were given up.

    Floating-point sums depend on their order, so without this a run's weights would change from run to run. Beside
    early answers nothing is held.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._order = list(devices)
        self._next = 0
        self._early: dict[str, T | None] = {}

    def settle(self, device: str, answer: T | None) -> Iterator[tuple[str, T]]:
        """An answer, or None where there will be none; yields those whose turn it is now. Once per device."""
        if device in self._early or device not in self._order[self._next :]:
            raise ValueError(f"{device} was not asked, or settled before")
        self._early[device] = answer
        return self._drain()

    def rest(self) -> Iterator[tuple[str, T]]:
        """Give up all devices not heard of; yields what waited for them."""
        for device in self._order[self._next :]:
            self._early.setdefault(device, None)
        return self._drain()

    def _drain(self) -> Iterator[tuple[str, T]]:
        while self._next < len(self._order) and self._order[self._next] in self._early:
            device = self._order[self._next]
            self._next += 1
            answer = self._early.pop(device)
            if answer is not None:
                yield device, answer
