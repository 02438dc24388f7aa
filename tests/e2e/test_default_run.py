"""`feddac simulate` without any option: the first thing that a new user does."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import environment
from tests.forked import feddac_forked


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_kind_of_device_gets_a_model_that_knows_the_digits(tmp_path: Path) -> None:
    done = feddac_forked(["simulate", "--out", "run"], tmp_path, environment(tmp_path), timeout=1700)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    accuracies = {cohort["cohort"]: cohort["test_accuracy"] for cohort in summary["cohorts"]}
    assert len(accuracies) >= 4
    assert min(accuracies.values()) > 0.9, accuracies
    assert sum(cohort["devices"] for cohort in summary["cohorts"]) == 8
