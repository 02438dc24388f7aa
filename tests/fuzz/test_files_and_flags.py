"""Generated damaged files and flags through the command line: a few always, WHOLE of them behind the slow marker.

    pytest -s -m slow tests/fuzz/test_files_and_flags.py

FEDDAC_FUZZ_CASES and FEDDAC_FUZZ_FIRST say how many, from which on (default 0); `-s` shows how far it is.

`tests/fuzz/corpus/` keeps what once went wrong, by kind: KIND--NAME.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.commands import Fuzzer

CORPUS = sorted(Path(__file__).with_name("corpus").iterdir())
FIRST = int(os.environ.get("FEDDAC_FUZZ_FIRST", "0"))
WHOLE = int(os.environ.get("FEDDAC_FUZZ_CASES", "2000"))
FEW = [case for case in range(400) if Fuzzer.KINDS[case % len(Fuzzer.KINDS)] in ("fleet", "architecture")][:40]

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux's /proc")


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("fuzz")
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        yield Fuzzer(home)


def test_a_few_generated_cases(fuzzer: Fuzzer) -> None:
    assert [wrong for number in FEW if (wrong := fuzzer.check(fuzzer.case(number)))] == []


@pytest.mark.parametrize("path", CORPUS, ids=[path.name for path in CORPUS])
def test_what_once_went_wrong(path: Path, fuzzer: Fuzzer) -> None:
    kind = path.name.partition("--")[0]
    assert fuzzer.check(fuzzer.make(kind, random.Random(0), path.read_bytes())) == ""


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_all_generated_cases(fuzzer: Fuzzer) -> None:
    wrong = {}
    for number in range(FIRST, FIRST + WHOLE):
        if found := fuzzer.check(fuzzer.case(number)):
            wrong[number] = found
            print(number, found, flush=True)
        elif number % 100 == 99:
            print(f"{number + 1 - FIRST} cases", flush=True)
    assert wrong == {}
