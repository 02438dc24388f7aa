"""The table of devices: counts, mean time and last reason, with what budgets.json says of each."""

import math
from pathlib import Path
from typing import Any

from common.budget import DeviceBudget
from server.budget_entries import BudgetEntry
from server.report.outcomes import MOST_ROWS, DeviceOutcome, most_telling, outcomes_of
from server.report.own_scores import OWN_EVENT
from server.report.record import read_run
from server.run_folder import RunFolder

BUDGETS = [
    BudgetEntry("b", DeviceBudget(), "phone", 0, 30, "cohort-0"),
    BudgetEntry("a", DeviceBudget(), "sensor", 1, 7, "cohort-1"),
]


def outcomes(path: Path, events: list[tuple[Any, ...]]) -> dict[str, DeviceOutcome]:
    with RunFolder.create(path) as folder:
        folder.write_config({"data": "digits"})
        folder.write_budgets(BUDGETS)
        for number, device, status, seconds, reason in events:
            cohort = "cohort-0" if number else ""
            folder.append(
                "device", round=number, device=device, cohort=cohort, status=status, seconds=seconds, reason=reason
            )
    return {each.device: each for each in outcomes_of(read_run(folder))}


def test_statuses_are_counted_and_times_averaged_over_what_was_trained(tmp_path: Path) -> None:
    found = outcomes(
        tmp_path / "run",
        [
            (1, "b", "trained", 1.0, ""),
            (2, "b", "late", 60.0, "no reply within 60 s"),
            (3, "b", "trained", 3.0, ""),
            (4, "b", "failed", 0.1, "battery empty"),
            (5, "b", "rejected", 0.2, "its weights are not finite"),
            (6, "b", "trained", 5.0, ""),
        ],
    )
    assert found["b"] == DeviceOutcome("b", "phone", "cohort-0", 30, 6, 3, 1, 1, 1, 3.0, "its weights are not finite")


def test_accuracies_are_those_of_the_network_that_runs_on_the_device(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run") as folder:
        folder.write_config({"data": "digits"})
        folder.write_budgets(BUDGETS)
        # as of fedgkt, which tests a device's stem below the server's network; other methods say nothing of the kind
        folder.append("round", round=1, cohort="cohort-0", device_network_accuracy=0.4)
        folder.append("round", round=1, cohort="cohort-1")
        for cohort, accuracy in (("cohort-0", 0.9), ("cohort-1", 0.8)):
            folder.append("evaluation", round=1, cohort=cohort, test_accuracy=accuracy)
        for number, own in ((0, 0.1), (1, 0.5)):  # only what was scored after the last round counts
            folder.append(OWN_EVENT, round=number, device="b", cohort="cohort-0", own_accuracy=own, own_images=6)
    run = read_run(folder)
    assert [(one.device, one.test_accuracy, one.own_images) for one in outcomes_of(run)] == [
        ("b", 0.4, 6),
        ("a", 0.8, 0),
    ]
    first, second = outcomes_of(run)
    assert first.own_accuracy == run.own_accuracy == run.cohorts[0].own_accuracy == 0.5
    assert math.isnan(second.own_accuracy)
    assert math.isnan(run.cohorts[1].own_accuracy)


def test_a_device_that_was_never_asked_is_listed(tmp_path: Path) -> None:
    found = outcomes(tmp_path / "run", [])
    assert list(found) == ["b", "a"]
    quiet = found["a"]
    assert (quiet.profile, quiet.cohort, quiet.samples, quiet.asked, quiet.last_reason) == (
        "sensor", "cohort-1", 7, 0, "",
    )  # fmt: skip
    assert math.isnan(quiet.mean_seconds)


def test_a_device_refused_at_the_handshake_comes_last_and_was_asked_nothing(tmp_path: Path) -> None:
    found = outcomes(tmp_path / "run", [(0, "weak", "rejected", 0, "no architecture fits")])
    assert list(found) == ["b", "a", "weak"]
    weak = found["weak"]
    assert (weak.asked, weak.rejected, weak.last_reason) == (0, 1, "no architecture fits")
    assert math.isnan(weak.samples)


def test_of_many_devices_those_with_trouble_are_kept(tmp_path: Path) -> None:
    events = [(1, f"d{number}", "trained", 1.0, "") for number in range(MOST_ROWS + 50)]
    late = (2, f"d{MOST_ROWS + 49}", "late", 1.0, "no reply")
    found = list(outcomes(tmp_path / "run", [*events, late]).values())
    kept = most_telling(found)
    assert len(kept) == MOST_ROWS
    assert kept[-1].late == 1
    assert [each.device for each in kept[:3]] == [each.device for each in found[:3]]
