"""What the benchmark of searches counts, and which search it is of."""

import subprocess
import sys

from benchmarks.search_cost import parser, processor_seconds
from common.groups import SearchSettings

BURN = "import time\nwhile time.process_time() < 0.5: pass"


def test_processes_that_have_ended_count() -> None:
    before = processor_seconds()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert processor_seconds() - before >= 0.45  # it is counted in hundredths


def test_the_search_space_is_that_of_a_search() -> None:
    assert parser().parse_args([]).search_space == SearchSettings().search_space
