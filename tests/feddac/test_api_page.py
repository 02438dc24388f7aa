"""docs/api.md: every example runs as it is printed, made short by settings of its own alone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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

# What a reader would not wait for in a test: defaults are replaced before the example runs, the example is as printed.
SHORT = """
import dataclasses, common.config as config
for group, values in (
    (config.SearchSettings, {"warmup_epochs": 1, "epochs_per_step": 0, "fine_tune_epochs": 1, "step_share": 0.9}),
    (config.ModelSettings, {"width": 0.25}),
    (config.MethodSettings, {"pretraining_epochs": 1}),
    (config.DataSettings, {"train_images": 300}),
):
    for one in dataclasses.fields(group):
        if one.name in values:
            one.default = values[one.name]
    names = [one.name for one in dataclasses.fields(group)]
    group.__init__.__defaults__ = tuple(one.default for one in dataclasses.fields(group))
"""


# All in one process, which imports PyTorch once; each with names and streams of its own.
DRIVER = """
import contextlib, io, json, sys, traceback

done = []
for example in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            exec(compile(example, "example", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
    done.append([out.getvalue(), err.getvalue()])
json.dump(done, sys.stdout)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """What each example printed on standard output and on standard error, run in the order of the page."""
    pytest.importorskip("onnxruntime")
    home = tmp_path_factory.mktemp("api")
    (home / "experiment.toml").write_text(EXPERIMENT)
    process = subprocess.run(
        [sys.executable, "-c", SHORT + DRIVER],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home / "cache")},
        input=json.dumps(EXAMPLES),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    return [(out, err) for out, err in json.loads(process.stdout)]


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
