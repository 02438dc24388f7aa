"""Budgets out of flags and files: lists in step, one bound for all, mistakes in one line."""

from pathlib import Path

import pytest

from common.budget import DeviceBudget, LocalTraining
from common.errors import BudgetError, ConfigurationError, FedDACError
from common.fleet import PROFILES
from common.rates import LatencyBound
from feddac.standalone.budgets import budgets_from_file, budgets_from_flags


def test_lists_of_equal_length_go_in_step() -> None:
    assert budgets_from_flags({"macs": ["3M,2M"], "params": ["1M", "500k"]}) == {
        "budget-1": DeviceBudget(macs=3_000_000, params=1_000_000),
        "budget-2": DeviceBudget(macs=2_000_000, params=500_000),
    }


def test_one_bound_holds_for_all() -> None:
    budgets = budgets_from_flags({"macs": ["3M"], "memory": ["256KB,128KB,64KiB"]})
    assert [budget.macs for budget in budgets.values()] == [3_000_000] * 3
    assert [budget.peak_memory_bytes for budget in budgets.values()] == [256_000, 128_000, 65_536]
    assert {budget.params for budget in budgets.values()} == {None}


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({}, ConfigurationError, "give at least one budget"),
        (
            {"macs": ["3M,2M"], "params": ["1M,2M,3M"]},
            ConfigurationError,
            "--max-macs has 2 bounds where another flag has 3",
        ),
        ({"macs": ["3M,"]}, BudgetError, "--max-macs must be a positive number"),
        ({"params": ["0"]}, BudgetError, "--max-params must be a positive number"),
        ({"memory": ["1 furlong"]}, BudgetError, "--max-memory must be a positive size"),
        ({"training-memory": ["-1"]}, BudgetError, "--max-training-memory must be a positive size"),
        ({"latency-ms": ["5"]}, ConfigurationError, "--max-latency-ms needs --profile"),
    ],
)
def test_bad_flags_are_refused(flags: dict[str, list[str]], error: type[FedDACError], message: str) -> None:
    with pytest.raises(error, match=message):
        budgets_from_flags(flags)


def test_latency_and_training_memory_are_bounds_as_well() -> None:
    flags = {"latency-ms": ["20,5"], "training-memory": ["8MB"]}
    budgets = list(budgets_from_flags(flags, "phone", LocalTraining(4)).values())
    assert [budget.training_memory_bytes for budget in budgets] == [8_000_000] * 2
    assert {budget.training.batch_size for budget in budgets} == {4}
    assert [budget.latency for budget in budgets] == [LatencyBound.by(PROFILES["phone"].rates, ms) for ms in (20, 5)]


def test_a_file_names_its_budgets(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text('[[budget]]\nname = "watch"\nmacs = "2M"\nmemory = "64KB"\n[[budget]]\nparams = 500000\n')
    assert budgets_from_file(path) == {
        "watch": DeviceBudget(macs=2_000_000, peak_memory_bytes=64_000),
        "budget-2": DeviceBudget(params=500_000),
    }


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[[budget", ConfigurationError, "not valid TOML"),
        ("", ConfigurationError, "must hold"),
        ("budget = 3", ConfigurationError, "must hold"),
        ("seed = 1\n[[budget]]\nmacs = 1", ConfigurationError, "must hold"),
        ("[[budget]]\nmac = 1", ConfigurationError, "budget 1: unknown setting 'mac': did you mean 'macs'"),
        ('[[budget]]\nname = "../x"\nmacs = 1', ConfigurationError, "a name is made of"),
        ('[[budget]]\nname = "a"\nmacs = 1\n[[budget]]\nname = "a"\nmacs = 2', ConfigurationError, "another budget"),
        ('[[budget]]\nname = "a"', BudgetError, "at least one of macs, params, memory"),
        ("[[budget]]\nmacs = -5", ConfigurationError, "budget 1: macs must be a positive number"),
        ("[[budget]]\nlatency-ms = 5", ConfigurationError, "budget 1: latency-ms needs a profile"),
        ('[[budget]]\nlatency-ms = -5\nprofile = "phone"', ConfigurationError, "positive number of milliseconds"),
        ('[[budget]]\nlatency-ms = 5\nprofile = "phon"', ConfigurationError, "did you mean 'phone'"),
        ("[[budget]]\nmacs = []", ConfigurationError, "budget 1: macs must be a positive number"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, content: str, error: type[FedDACError], message: str
) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(content)
    with pytest.raises(error, match=message) as caught:
        budgets_from_file(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        budgets_from_file(tmp_path / "none.toml")
