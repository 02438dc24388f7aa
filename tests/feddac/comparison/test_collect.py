"""From run folders to numbers and rows, against numbers worked out by hand."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import CheckpointError
from common.wording import MISSING, percent, plain
from feddac.comparison.collect import CellResult, collect
from feddac.comparison.from_json import read_comparison
from feddac.comparison.plan import Experiment
from feddac.comparison.statistics import Spread
from feddac.comparison.tables import HEADINGS, cell_tables, rich_table
from feddac.comparison.unserved import Fleet
from feddac.comparison.write import write_comparison
from server.run_folder import RunFolder

SETTINGS = "[settings]\ndevices = 3\nrounds = 2\n"
METHODS = '[methods.large]\nmethod = "fedavg"\n[methods.small]\nmethod = "fedavg"\nrounds = 1\n'


def cohort(name: str, devices: int, macs: int, accuracy: float, over_budget: int = 0) -> dict[str, Any]:
    cost = {"macs": macs, "params": 2 * macs, "peak_memory_bytes": 4 * macs}
    return {"cohort": name, "devices": devices, "test_accuracy": accuracy, "over_budget": over_budget, **cost}


def finish(folder: RunFolder, cohorts: list[dict[str, Any]], accuracy: float) -> None:
    folder.write_summary(
        {
            **{
                "test_accuracy": accuracy,
                "cohorts": cohorts,
                "seconds_total": 12.0,
                "bytes_down": 30,
                "bytes_up": 12,
                "simulated_seconds": 7200.0,
            },
            **{"device_macs_per_round": 9000.0, "server_seconds": 5.0, "server_bytes": 77, "epochs_on_reference": 4},
        }
    )


@pytest.fixture
def result(small_experiment: Callable[..., Experiment], tmp_path: Path) -> CellResult:
    """Method large has three devices in two cohorts and is done with seeds 0 and 1; small with seed 0 alone."""
    plan = small_experiment(top="seeds = [0, 1]", settings=SETTINGS, rest=METHODS)
    for seed, shift in ((0, 0.0), (1, 0.06)):
        with RunFolder.create(tmp_path / "all/large" / f"seed-{seed}") as folder:
            cohorts = [cohort("cohort-1", 2, 100, 0.6 + shift), cohort("cohort-0", 1, 400, 0.9 + shift, 1)]
            finish(folder, [*cohorts, cohort("cohort-2", 0, 50, 0.1)], 0.7 + shift)
            folder.append("evaluation", round=0, cohort="cohort-1", test_accuracy=0.3)
            folder.append("evaluation", round=0, cohort="cohort-0", test_accuracy=0.6 + shift)
            folder.append("evaluation", round=1, cohort="cohort-1", test_accuracy=0.6 + shift)
    with RunFolder.create(tmp_path / "all/small/seed-0") as folder:
        folder.append("run", class_names=["cat", "dog", "hat", "log"])
        finish(folder, [cohort("cohort-0", 2, 100, 0.5)], 0.5)
        folder.append("evaluation", round=0, cohort="cohort-0", test_accuracy=0.25)
        folder.append("evaluation", round=1, cohort="cohort-0", test_accuracy=0.55)
    (one,) = collect(plan, tmp_path)
    return one


def test_means_over_devices_and_seeds(result: CellResult) -> None:
    large = result.methods[0]
    means = {measure: value.mean for measure, value in large.spreads.items()}
    assert means == {
        "accuracy": pytest.approx(0.73),
        "fleet_accuracy": pytest.approx(0.73),
        "late_accuracy": pytest.approx((2 * 0.3 + 0.63) / 3),
        "worst_accuracy": pytest.approx(0.63),
        "macs": 200,
        "params": 400,
        "peak_memory_bytes": 800,
        "device_macs_per_round": 9000,
        "bytes_down": 30,
        "bytes_up": 12,
        "bytes": 42,
        "simulated_seconds": 7200,
        "server_seconds": 5,
        "server_bytes": 77,
        "epochs_on_reference": 4,
        "seconds": 12,
        "over_budget": 1,
        "devices_served": 3,
    }
    assert large.spreads["accuracy"].deviation == pytest.approx(0.06 / 2**0.5)
    assert [rank.mean for rank in large.ranks] == pytest.approx([0.93, 0.63])
    assert large.macs_range == (100, 400)


def test_the_curve_is_the_mean_over_devices_of_rounds_that_all_cohorts_evaluated(result: CellResult) -> None:
    ((number, mean, deviation, seconds),) = result.methods[0].curve
    assert (number, seconds) == (0, 0.0)
    assert mean == pytest.approx((2 * 0.3 + 0.63) / 3)
    assert deviation == pytest.approx(0.02 / 2**0.5)


def test_with_one_shared_seed_there_is_no_significance(result: CellResult) -> None:
    large, small = cell_tables([result])[0].rows
    difference = HEADINGS.index("difference [95 %]")
    assert large[difference : difference + 4] == ("baseline", "", "", "")
    (outcome,), other = result.methods[1].outcomes, result.methods[0].outcomes[0]
    mean = 100 * (outcome.fleet_accuracy - other.fleet_accuracy)
    assert small[difference : difference + 4] == (f"{mean:+.1f} [{MISSING}]", MISSING, MISSING, MISSING)
    assert small[HEADINGS.index("seeds")] == "1"


def test_accuracy_of_a_part_of_the_devices_says_so(result: CellResult) -> None:
    large, small = cell_tables([result])[0].rows
    assert "of" not in large[1]
    assert small[1].endswith("(2 of 3)")
    assert small[HEADINGS.index("devices with a model")] == "2 of 3"


def test_devices_without_a_model_guess(result: CellResult) -> None:
    """Two of three devices have 50 %, the third one of four classes: in plots, differences and targets too."""
    large, small = result.methods
    (outcome,) = small.outcomes
    assert outcome.worst_accuracy == 0.25
    assert outcome.fleet_accuracy == pytest.approx((2 * 0.5 + 0.25) / 3)
    assert [point.accuracy for point in outcome.progress] == pytest.approx([0.25, (2 * 0.55 + 0.25) / 3])
    assert outcome.late_accuracy == pytest.approx((2 * 0.55 + 0.25) / 3)
    assert small.difference is not None
    assert small.difference.mean == pytest.approx(outcome.fleet_accuracy - large.outcomes[0].accuracy)
    assert cell_tables([result])[0].rows[1][HEADINGS.index("accuracy of all devices")] == percent(
        outcome.fleet_accuracy
    )


COMPARED = {"base": (0.30, 0.32, 0.34), "far": (0.40, 0.42, 0.46), "near": (0.31, 0.33, 0.38), "new": (0.35, 0.36)}


@pytest.fixture
def compared(small_experiment: Callable[..., Experiment], tmp_path: Path) -> CellResult:
    """Three methods with three seeds, one with two; far is 10, 10 and 12 points ahead of base, near 1, 1 and 4."""
    methods = "".join(f'[methods.{name}]\nmethod = "fedavg"\n' for name in COMPARED)
    plan = small_experiment(top="seeds = [0, 1, 2]", settings=SETTINGS, rest=methods)
    for name, accuracies in COMPARED.items():
        for seed, accuracy in enumerate(accuracies):
            with RunFolder.create(tmp_path / f"all/{name}/seed-{seed}") as folder:
                finish(folder, [cohort("cohort-0", 3, 100, accuracy)], accuracy)
    (one,) = collect(plan, tmp_path)
    return one


def test_p_is_corrected_for_what_is_compared_in_one_setting(compared: CellResult) -> None:
    """Two tests were made: the smaller p counts twice, the other once. Two seeds of `new` allow no test."""
    base, far, near, new = (one.difference for one in compared.methods)
    assert base is None
    assert far
    assert near
    assert new
    assert far.mean == pytest.approx(0.32 / 3)
    # t = mean / (deviation / sqrt(3)) with two degrees of freedom, where p = 1 - t / sqrt(2 + t^2).
    for found, mean, variance in ((far, 0.32 / 3, 0.0004 / 3), (near, 0.02, 0.0003)):
        t = mean / math.sqrt(variance / 3)
        assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
        assert found.effect == pytest.approx(mean / math.sqrt(variance * math.pi))
    assert far.corrected_p == pytest.approx(2 * far.p)
    assert near.corrected_p == pytest.approx(near.p)
    assert new.mean == pytest.approx(0.045)
    assert all(math.isnan(one) for one in (new.p, new.corrected_p, new.half_width, new.effect))


def test_the_row_of_a_comparison(compared: CellResult) -> None:
    _, far, near, new = cell_tables([compared])[0].rows
    difference = HEADINGS.index("difference [95 %]")
    assert HEADINGS[difference : difference + 4] == ("difference [95 %]", "p", "p (Holm)", "effect size")
    assert far[difference : difference + 4] == ("+10.7 [+7.8, +13.5]", "0.004", "0.008", "+5.21")
    assert near[difference : difference + 4] == ("+2.0 [-2.3, +6.3]", "0.184", "0.184", "+0.65")
    assert new[difference : difference + 4] == (f"+4.5 [{MISSING}]", MISSING, MISSING, MISSING)


def test_every_file_has_interval_corrected_p_and_effect_size(
    compared: CellResult, small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    methods = "".join(f'[methods.{name}]\nmethod = "fedavg"\n' for name in COMPARED)
    plan = small_experiment(top="seeds = [0, 1, 2]", settings=SETTINGS, rest=methods)
    write_comparison(plan, [compared], [], tmp_path)
    for name in ("comparison.md", "comparison.html", "comparison.tex"):
        text = (tmp_path / name).read_text()
        for shown in ("+10.7 [+7.8, +13.5]", "0.008", "+5.21", "p (Holm)", "effect size", "fewer than 3 seeds"):
            assert shown in text, (name, shown)
    rows = {row["method"]: row for row in csv.DictReader((tmp_path / "differences.csv").open())}
    assert list(rows) == ["far", "near", "new"]
    assert (rows["far"]["cell"], rows["far"]["baseline"], rows["far"]["pairs"]) == ("all", "base", "3")
    assert float(rows["far"]["p_holm"]) == pytest.approx(2 * float(rows["far"]["p"]))
    assert float(rows["far"]["low_95"]) == pytest.approx(0.0780, abs=1e-4)
    assert float(rows["far"]["high_95"]) == pytest.approx(0.1353, abs=1e-4)
    assert float(rows["near"]["effect_size"]) == pytest.approx(0.02 / math.sqrt(0.0003 * math.pi))
    assert [rows["new"][name] for name in ("low_95", "high_95", "p", "p_holm", "effect_size")] == [""] * 5


@pytest.mark.parametrize(("target", "count"), [(0.3, 2), (0.41, 0)])
def test_a_cost_to_the_target_is_of_all_seeds_or_of_none(
    target: float, count: int, small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    """The seeds reach 40 and 42 %: the mean over those that reach 41 % would be that of the fast ones."""
    top = f"seeds = [0, 1]\ntarget = {target}"
    plan = small_experiment(top=top, settings=SETTINGS, rest='[methods.one]\nmethod = "fedavg"\n')
    for seed, accuracy in ((0, 0.40), (1, 0.42)):
        with RunFolder.create(tmp_path / f"all/one/seed-{seed}") as folder:
            finish(folder, [cohort("cohort-0", 3, 100, accuracy)], accuracy)
            folder.append("evaluation", round=1, cohort="cohort-0", test_accuracy=accuracy)
    (result,) = collect(plan, tmp_path)
    assert result.methods[0].to_target["round"].count == count


def test_what_guessing_is_worth_is_unknown_without_the_classes() -> None:
    assert math.isnan(Fleet.of(3, 2, []).over_all(0.5))
    assert Fleet.of(3, 3, []).over_all(0.5) == 0.5
    assert Fleet.of(3, 0, [{"event": "run", "class_names": ["a", "b"]}]).over_all(math.nan) == 0.5


@pytest.mark.parametrize(("width", "columns"), [(30, 2), (80, 6), (400, 20)])
def test_a_terminal_gets_the_columns_it_has_room_for(width: int, columns: int, result: CellResult) -> None:
    assert len(rich_table(cell_tables([result])[0], width).columns) == columns


def test_80_letters_have_room_for_interval_corrected_p_and_effect_size(compared: CellResult) -> None:
    name = "uniform-overlap"  # as long as any in the experiments that come with FedDAC
    longest = replace(compared, methods=tuple(replace(one, name=name) for one in compared.methods))
    shown = [str(column.header).replace("\n", " ") for column in rich_table(cell_tables([longest])[0], 80).columns]
    assert shown[:5] == ["method", "accuracy of all devices", "difference [95 %]", "p (Holm)", "effect size"]


def test_a_run_folder_without_a_summary_does_not_count(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    plan = small_experiment(top="", settings=SETTINGS, rest=METHODS)
    folder = tmp_path / "all/large/seed-0"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(json.dumps({}))
    assert [method.outcomes for method in collect(plan, tmp_path)[0].methods] == [(), ()]


@pytest.mark.parametrize(("cohorts", "text"), [(2, "90.0 % / 89.0 %"), (8, "83.0 % to 90.0 %"), (0, MISSING)])
def test_many_cohorts_are_a_range(result: CellResult, cohorts: int, text: str) -> None:
    ranks = tuple(Spread(0.9 - number / 100, math.nan, 1) for number in range(cohorts))
    changed = replace(result, methods=(replace(result.methods[0], ranks=ranks),))
    [table] = cell_tables([changed])
    assert plain(table.rows[0][HEADINGS.index("per cohort")]) == text


def test_a_comparison_read_from_its_json_is_the_one_that_was_written(
    small_experiment: Callable[..., Experiment], result: CellResult, tmp_path: Path
) -> None:
    plan = small_experiment(top="seeds = [0, 1]", settings=SETTINGS, rest=METHODS)
    write_comparison(plan, [result], [], tmp_path / "out")
    experiment, again = read_comparison(tmp_path / "out" / "comparison.json")
    write_comparison(experiment, again, [], tmp_path / "again")
    for path in (tmp_path / "out").iterdir():
        if path.suffix != ".html":  # which also says how many runs were planned
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("content", ["{", "[]", '{"cells": []}'])
def test_a_file_that_is_no_comparison_is_one_clear_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=r"comparison\.json"):
        read_comparison(path)
