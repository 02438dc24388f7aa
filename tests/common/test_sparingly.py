"""Work beside the main one takes its share of the time and no more."""

from common.sparingly import Sparingly


class Clock:
    """Time that passes only when something takes it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_work_of_two_seconds_at_a_tenth_is_done_every_twenty() -> None:
    clock = Clock()
    spare, begun = Sparingly(0.1, clock=clock), []

    def work() -> None:
        begun.append(clock.now)
        clock.now += 2

    while clock.now < 50:
        spare.do(work)
        clock.now += 1
    assert begun == [0, 20, 40]


def test_work_that_takes_no_time_is_done_whenever_it_is_asked_for() -> None:
    clock = Clock()
    spare, begun = Sparingly(0.02, clock=clock), []
    for clock.now in (0.0, 0.5, 1.0):
        spare.do(lambda: begun.append(clock.now))
    assert begun == [0.0, 0.5, 1.0]


def test_the_first_time_can_be_put_off() -> None:
    clock = Clock()
    spare, begun = Sparingly(0.5, 10, clock), []
    for clock.now in (0.0, 9.0, 10.0):
        spare.do(lambda: begun.append(clock.now))
    assert begun == [10.0]


def test_what_must_be_done_is_done_and_counts() -> None:
    clock = Clock()
    spare, begun = Sparingly(0.5, 10, clock), []

    def work() -> None:
        begun.append(clock.now)
        clock.now += 4

    spare.do(work, surely=True)
    for clock.now in (7.0, 8.0):
        spare.do(work)
    assert begun == [0.0, 8.0]
