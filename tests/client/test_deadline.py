"""The deadline: it interrupts, it is asked elsewhere, and it leaves other alarms alone."""

import signal
import threading
import time

import pytest

from client.deadline import deadline
from common.errors import FederationError


def test_work_that_never_ends_is_interrupted() -> None:
    def sleep() -> None:
        with deadline(0.05, "sleep"):
            while True:
                time.sleep(1)

    with pytest.raises(FederationError, match=r"^did not sleep within 0\.05 s$"):
        sleep()


def test_work_in_time_is_left_alone() -> None:
    with deadline(30, "add") as check:
        check()
        result = 1 + 1
    assert result == 2


def test_in_another_thread_the_work_asks() -> None:
    reasons: list[str] = []

    def work() -> None:
        try:
            with deadline(0.01, "wait") as check:
                time.sleep(0.05)
                check()
        except FederationError as error:
            reasons.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert reasons == ["did not wait within 0.01 s"]


def test_an_alarm_that_was_set_before_still_comes() -> None:
    rang: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with deadline(30, "be quick"):
            pass
        assert signal.getitimer(signal.ITIMER_REAL)[0] <= 0.1
        while not rang:
            signal.pause()
        assert rang == [1]
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left, interval)
