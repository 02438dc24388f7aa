"""What a trial is judged by: validation images alone, the mean over all devices."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from common.budget import DeviceBudget
from feddac.tuning.score import after_rounds, at_the_end
from server.budget_entries import BudgetEntry
from server.run_folder import RunFolder


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., RunFolder]:
    """A run of six devices: three in cohort-0, two in cohort-1, one refused; two rounds of evaluations."""

    def write(
        validation: float = 0.0, test: float = 0.0, cohorts: tuple[str, ...] = ("cohort-0", "cohort-1")
    ) -> RunFolder:
        folder = RunFolder(tmp_path)
        members = ("cohort-0", "cohort-0", "cohort-0", "cohort-1", "cohort-1", "")
        folder.write_budgets([BudgetEntry(f"d-{n}", DeviceBudget(), cohort=one) for n, one in enumerate(members)])
        with folder:
            folder.append("run", class_names=["a", "b", "c", "d"])
            for number in (0, 1, 2):
                for cohort in cohorts:
                    accuracy = 0.2 * number + 0.1 * int(cohort[-1]) + validation
                    folder.append(
                        "evaluation", round=number, cohort=cohort, validation_accuracy=accuracy, test_accuracy=test
                    )
        rows = [
            {"cohort": one, "devices": 3 - n, "validation_accuracy": 0.4 + 0.1 * n + validation, "test_accuracy": test}
            for n, one in enumerate(cohorts)
        ]
        folder.write_summary({"cohorts": [*rows, {"cohort": "cohort-9", "devices": 0, "validation_accuracy": None}]})
        return folder

    return write


def test_it_is_the_mean_over_all_devices_of_which_some_guess(write_run: Callable[..., RunFolder]) -> None:
    folder = write_run()
    first = (3 * 0.2 + 2 * 0.3 + 1 * 0.25) / 6  # one of four classes is guessed by the device without a model
    second = (3 * 0.4 + 2 * 0.5 + 1 * 0.25) / 6
    assert after_rounds(folder, 6) == pytest.approx({1: first, 2: second})  # round 0 says nothing of the rounds
    assert at_the_end(folder, 6) == pytest.approx(second)


def test_validation_images_decide_and_test_images_do_not(write_run: Callable[..., RunFolder]) -> None:
    before = after_rounds(write_run(), 6), at_the_end(write_run(), 6)

    other_test = write_run(test=0.9)
    assert (after_rounds(other_test, 6), at_the_end(other_test, 6)) == before
    other_validation = write_run(validation=0.1)
    assert after_rounds(other_validation, 6) != before[0]
    assert at_the_end(other_validation, 6) != before[1]


def test_a_round_counts_once_all_cohorts_are_evaluated(write_run: Callable[..., RunFolder]) -> None:
    assert after_rounds(write_run(cohorts=("cohort-0",)), 6) == {}


def test_a_run_that_has_not_begun_has_no_accuracies(tmp_path: Path) -> None:
    assert after_rounds(RunFolder(tmp_path), 6) == {}


def test_an_accuracy_that_is_no_number_stays_none(write_run: Callable[..., RunFolder]) -> None:
    assert math.isnan(at_the_end(write_run(validation=math.nan), 6))


def test_the_code_that_judges_never_names_a_figure_of_the_test_set() -> None:
    place = Path(__file__).resolve().parents[3] / "feddac/tuning"
    for path in place.glob("*.py"):
        assert "test_accuracy" not in path.read_text(encoding="utf-8"), path
