"""What all tests share: one torch thread, as virtual devices have, and a Ctrl-C that works.

Sums are split among threads, so a test that recomputes what a device did must do it with as many threads; and on a
machine with few cores the suite is faster this way.
"""

import gc
import os
import signal

import pytest
import torch
from hypothesis import is_hypothesis_test

from tests.examples import try_all

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A background job ignores Ctrl-C, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.fsync = lambda descriptor: None  # what a test writes outlives its processes, and the machine goes on
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start

LONGEST = ("tests/e2e/", "tests/feddac/deployment/", "tests/simulation/", "tests/server/methods/")
"""Where single tests take longest. They go first, so that in the end no worker waits for another."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: now and then each waits for what another process does."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """Asked for slow tests, every property is tried on all its examples."""
    if "not slow" not in config.option.markexpr:
        try_all()


def pytest_collection_finish() -> None:
    """What was imported stays; the collector of garbage need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long ones first; a property with all its examples is slow."""
    items.sort(key=lambda item: next((n for n, place in enumerate(LONGEST) if item.nodeid.startswith(place)), 9))
    if "not slow" not in config.option.markexpr:
        for item in items:
            if is_hypothesis_test(getattr(item, "obj", None)):
                item.add_marker(pytest.mark.slow)
