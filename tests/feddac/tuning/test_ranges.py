"""The [tune] table: what is tried for which method, and one line for each mistake."""

from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from feddac.comparison.plan import SHIPPED, read_experiment
from feddac.tuning.plan import Tuning, read_tuning
from feddac.tuning.ranges import Range

BASE = """
seeds = [0, 4]
[settings]
rounds = 3
[methods.plain]
[methods.fedprox]
method = "fedprox"
"""
Write = Callable[..., Path]


def ranges_of(tuning: Tuning) -> dict[str, dict[str, Range]]:
    return {method.name: dict(method.ranges) for method in tuning.methods}


def test_without_the_table_the_learning_rate_is_tried_for_all(write_experiment: Write) -> None:
    rate = Range(low=0.003, high=0.3, log=True)
    tuning = read_tuning(write_experiment(BASE))
    assert ranges_of(tuning) == {"plain": {"learning-rate": rate}, "fedprox": {"learning-rate": rate}}
    assert tuning.seed == 5
    assert {config.run.seed for method in tuning.methods for config in method.configs.values()} == {5}


def test_methods_have_ranges_of_their_own_beside_or_instead(write_experiment: Write) -> None:
    table = (
        "[tune]\nlearning-rate = {low = 0.01, high = 1}\nmomentum = [0, 0.9]\ndistillation-epochs = [0, 1]\n"
        "distillation-learning-rate = [0.001, 0.01]\n"
        "[tune.methods.fedprox]\nproximal-coefficient = [0.1]\nlearning-rate = [0.1, 0.5]\n"
    )
    found = ranges_of(read_tuning(write_experiment(BASE + table)))
    assert found["fedprox"] == {
        "learning-rate": Range(choices=(0.1, 0.5)),
        "momentum": Range(choices=(0.0, 0.9)),
        "proximal-coefficient": Range(choices=(0.1,)),
    }
    # a method has those that it reads, and those that have an effect beside another that is tried
    assert list(found["plain"]) == ["learning-rate", "momentum", "distillation-epochs", "distillation-learning-rate"]
    assert found["plain"]["learning-rate"] == Range(low=0.01, high=1.0)


def test_what_has_no_effect_beside_other_values_is_left_out_of_a_trial(write_experiment: Write) -> None:
    table = "[tune]\ndistillation-epochs = [0, 1]\ndistillation-learning-rate = [0.001, 0.01]\nlearning-rate = [0.1]\n"
    plain = read_tuning(write_experiment(BASE + table)).methods[0]
    values = {"distillation-epochs": 0, "distillation-learning-rate": 0.01, "learning-rate": 0.1}
    assert plain.effective(values) == {"distillation-epochs": 0, "learning-rate": 0.1}
    assert plain.effective({**values, "distillation-epochs": 1}) == {**values, "distillation-epochs": 1}


def test_a_comparison_lets_the_table_be(write_experiment: Write) -> None:
    plan = read_experiment(write_experiment(BASE + "[tune]\nlearning-rate = [0.1]\n"))
    assert plan.runs == read_experiment(write_experiment(BASE)).runs


def test_numbers_are_rounded_within_the_range() -> None:
    one = Range(low=0.0031234, high=0.3, log=True)
    assert one.rounded(0.123456789) == 0.1235
    assert one.rounded(0.00312341) == 0.0031234
    assert Range(choices=(0.123456789,)).rounded(0.123456789) == 0.123456789


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("tune = 3", "tune must be a table of ranges"),
        ("[tune]", "[tune] names no setting"),
        ("[tune]\nlerning-rate = [0.1]", "[tune] unknown setting 'lerning-rate': did you mean 'learning-rate'?"),
        ("[tune]\nlearning-rate = 0.1", "[tune] learning-rate must be a list of values or {low = ..., high = ...}"),
        ("[tune]\nlearning-rate = []", "[tune] learning-rate must list at least one value"),
        ("[tune]\nlearning-rate = [[1]]", "[tune] learning-rate must list at least one value"),
        ("[tune]\nlearning-rate = {low = 1}", "[tune] learning-rate needs numbers low and high"),
        ("[tune]\nlearning-rate = {low = 1, high = 0.1}", "needs numbers low and high with low below high"),
        ("[tune]\nlearning-rate = {low = true, high = 2}", "needs numbers low and high"),
        ("[tune]\nlearning-rate = {low = 0, high = inf}", "needs numbers low and high"),
        ("[tune]\nlearning-rate = {low = 0, high = 1, log = true}", "with true low above 0"),
        ("[tune]\nlearning-rate = {low = 0.1, high = 1, log = 1}", "log must be true or false"),
        ("[tune]\nlearning-rate = {low = 0.1, hihg = 1}", "unknown key 'hihg': did you mean 'high'?"),
        ("[tune]\nlearning-rate = {low = -1, high = 1}", "learning-rate must be"),
        ("[tune]\nlearning-rate = ['much']", "learning-rate must be a number, not 'much'"),
        ("[tune]\nlocal-epochs = {low = 1, high = 3}", "local-epochs is no number: give a list of values"),
        ("[tune]\nlocal-batch-size = {low = 1.5, high = 3}", "local-batch-size must be a whole number"),
        ("[tune]\nrounds = [1, 2]", "[tune] rounds cannot be tried: it must be the same for all"),
        ("[tune]\nvalidation-fraction = [0.1, 0.2]", "[tune] validation-fraction cannot be tried"),
        ("[tune]\nseed = [1]", "[tune] seed cannot be tried"),
        ("[tune]\nfedgkt-alpha = [1.0, 2.0]", "fedgkt-alpha"),
        ("[tune]\nlearning-rate = [0.01]", "[tune] learning-rate has no effect"),
        ("[tune]\nwidth = [0.5]\n[tune.methods.fedprox]\nwidth = [1.0]", "[tune.methods.fedprox] width has one value"),
        ("[tune.methods.fedprox]\nproximal-coefficient = [0.1]", "nothing of [tune] has an effect on the method plain"),
        ("[tune.methods.other]\nlearning-rate = [0.1]", "[tune.methods.other] is none of the methods"),
        ("[tune.methods]\nplain = 3", "tune.methods.plain must be a table of ranges, not 3"),
        ("[tune]\nmethods = 3", "tune.methods must hold tables"),
        ("[tune.methods.plain]\nproximal-coefficient = [0.1]", "the method does not read it"),
        ("[tune.methods.fedprox]\nproximal-coeficient = [0.1]", "did you mean 'proximal-coefficient'?"),
        ("[tune.methods.plain]\ntrim-share = [0.1, 0.3]", "without --robust-aggregation trimmed-mean"),
        ("[tune]\nlearning-rate = [0.1]\n[grid]\nlearning-rate = [0.1, 0.2]", "learning-rate is varied by [grid]"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(table: str, message: str, write_experiment: Write) -> None:
    text = f"{table}\n{BASE}" if table == "tune = 3" else BASE + table
    path = write_experiment(text)
    with pytest.raises(ConfigurationError) as caught:
        read_tuning(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_seed_of_the_experiment_is_refused(write_experiment: Write) -> None:
    path = write_experiment(BASE)
    with pytest.raises(ConfigurationError, match=r"--seed 4 is one of the experiment's seeds: .* such as 5"):
        read_tuning(path, seed=4)
    assert read_tuning(path, seed=2).seed == 2


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_can_be_tuned(path: Path) -> None:
    tuning = read_tuning(path)
    assert [method.name for method in tuning.methods] == list(tuning.experiment.methods)
    assert all(method.ranges for method in tuning.methods)
