"""docs/api.md: every example runs as it is printed, made short by settings of its own alone."""

import json
import os
import re
from functools import partial
from pathlib import Path

import pytest

from tests.feddac.api_examples import run_examples
from tests.forked import done_forked

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.DOTALL)
EXPERIMENT = """
seeds = [0, 1]
[settings]
model = "mlp"
devices = 2
rounds = 1
[methods.cohort]
[methods.fedavg]
method = "fedavg"
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """What each example printed on standard output and on standard error, run in the order of the page."""
    pytest.importorskip("onnxruntime")
    home = tmp_path_factory.mktemp("api")
    (home / "experiment.toml").write_text(EXPERIMENT)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home / "cache")}
    results = home / "results.json"
    process = done_forked(partial(run_examples, EXAMPLES, results), home, variables, timeout=280)
    assert (process.returncode, process.stderr) == (0, "")
    return [(out, err) for out, err in json.loads(results.read_text())]


def test_the_page_has_examples_of_every_function() -> None:
    text = "".join(EXAMPLES)
    for name in ("simulate", "load", "read_run", "export", "search", "train", "compare", "DeviceBudget"):
        assert f"feddac.{name}(" in text


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int, done: list[tuple[str, str]]) -> None:
    """In the order of the page: some use what others made."""
    printed, errors = done[number]
    assert errors == ""
    assert printed
    if "It scores" in EXAMPLES[number] or "test.labels" in EXAMPLES[number]:
        for line in printed.splitlines():
            _, found, said = line.split()
            assert abs(float(found) - float(said)) < 1.5 / 359
