"""Runs the examples of docs/api.md in a process forked from one that has imported everything (tests/forked.py)."""

import contextlib
import dataclasses
import io
import json
import traceback
from pathlib import Path

from common import groups
from feddac.comparison import processes
from tests.forked import start_run

SHORT = (
    (groups.SearchSettings, {"warmup_epochs": 1, "epochs_per_step": 0, "fine_tune_epochs": 1, "step_share": 0.9}),
    (groups.ModelSettings, {"width": 0.25}),
    (groups.MethodSettings, {"pretraining_epochs": 1}),
    (groups.DataSettings, {"train_images": 300}),
)
"""What a reader would not wait for in a test: defaults are replaced before the example runs; it is as printed."""


def make_short() -> None:
    """Replace the defaults of this process; it is not used for anything else."""
    for group, values in SHORT:
        for one in dataclasses.fields(group):
            if one.name in values:
                one.default = values[one.name]
        group.__init__.__defaults__ = tuple(one.default for one in dataclasses.fields(group))  # type: ignore[misc]


def run_examples(examples: list[str], results: Path) -> None:
    """Run one after the other; what each printed on standard output and on standard error goes to `results` as JSON."""
    make_short()
    processes.start_run = start_run  # type: ignore[assignment]
    done = []
    for example in examples:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                exec(compile(example, "example", "exec"), {"__name__": "__main__"})
            except BaseException:
                traceback.print_exc()
        done.append([out.getvalue(), err.getvalue()])
    results.write_text(json.dumps(done), encoding="utf-8")
