"""A hang-up ends `feddac up` in order, unless it was started by nohup."""

import signal
from collections.abc import Iterator

import pytest

from feddac.cli.commands.up import end_in_order_when_asked

NUMBERS = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_it_ends_as_by_ctrl_c(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    end_in_order_when_asked()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_what_nohup_has_it_ignore_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_in_order_when_asked()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    signal.raise_signal(signal.SIGHUP)
