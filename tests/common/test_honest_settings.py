"""A setting that the method does not read, or that another leaves nothing to do, is refused by name."""

import dataclasses
from typing import Any

import pytest

from common.config import GROUPS, Config
from common.effects import CONDITIONS, FEDNAS_SEARCH, require_effect, without_effect
from common.errors import ConfigurationError
from common.groups import SearchSettings
from common.methods import CONTRACTS
from common.settings import Scalar, key_of

FIELDS = {key_of(one.name): one for group in GROUPS for one in dataclasses.fields(group)}  # type: ignore[arg-type]
PATTERNED: dict[str, Scalar] = {
    "partition": "dirichlet:0.5",
    "strides": "1,1,1,1,1,1,1",
    "fedgkt-server-epochs": "20,10@31",
    "local-epochs": "3",
    "optimizer": "nesterov",
    "fedgkt-server-optimizer": "nesterov",
    "method": "fedavg",
}


def changed_value(key: str) -> Scalar:
    """A possible value that is not the default."""
    field = FIELDS[key]
    default: Any = field.default
    if key in PATTERNED:
        return PATTERNED[key]
    if isinstance(default, bool):
        return not default
    if field.metadata["choices"]:
        return str(next(choice for choice in field.metadata["choices"] if choice != default))
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 or 0.25
    return f"{default}x"


NOT_SEARCHED = ("autoflip", "fedavg", "fedgkt", "fedprox", "heterofl")
SOURCED: dict[str, Scalar] = {"architectures": "family"}
UNIFORM: dict[str, Scalar] = {"recipe": "uniform"}
MEDIAN: dict[str, Scalar] = {"robust-aggregation": "median"}
RANDOM: dict[str, Scalar] = {"initial-weights": "random"}
UNTRAINED: dict[str, Scalar] = {"pretraining-epochs": 0}
STILL: dict[str, Scalar] = {"fednas-training-coefficient": 0.0, "fednas-validation-coefficient": 0.0}
ARCHITECTURE = ["fednas-architecture-learning-rate", "fednas-architecture-weight-decay"]
SEARCH = [key for key in SearchSettings.keys() if key != "search-batch-size"]  # noqa: SIM118
EXPLORATION = ["autoflip-explorers", "autoflip-exploration-epochs", "autoflip-patience", "autoflip-normalisation"]
PRETRAINING = ["search-learning-rate", "search-batch-size", "search-momentum", "search-weight-decay"]

# settings, method, what leaves them nothing to do, and what of that must be otherwise for them to have an effect
WITHOUT: list[tuple[list[str], str, Any, Any]] = [
    *((["stem-stride", "strides"], method, {"model": "resnet20"}, {"model": "mobilenet_v2"}) for method in CONTRACTS),
    (["search-space", "channel-floor", "channel-multiple", "entropy-coefficient"], "dac", UNIFORM, {"recipe": "paper"}),
    *((["trim-share"], method, {}, {"robust-aggregation": "trimmed-mean"}) for method in CONTRACTS),
    *((["trim-share"], method, MEDIAN, {"robust-aggregation": "trimmed-mean"}) for method in CONTRACTS),
    *((["local-dp-epsilon", "local-dp-delta"], method, {}, {"local-dp-clipping-norm": 1.0}) for method in CONTRACTS),
    *((["optimizer"], method, {"momentum": 0.0}, {"momentum": 0.1}) for method in CONTRACTS),
    (["fedgkt-server-optimizer"], "fedgkt", {"momentum": 0.0}, {"momentum": 0.1}),
    *((["min-devices"], method, {}, {"fraction": 0.5}) for method in CONTRACTS),
    (["min-devices"], "autoflip", {}, {"autoflip-explorers": 0.5}),
    (["batch-norm"], "dac", {}, {"aggregation": "overlap"}),
    *((["batch-norm"], method, {}, {"batch-norm": "frozen"}) for method in ("autoflip", "fedavg", "fednas", "fedprox")),
    (EXPLORATION, "autoflip", {"autoflip-guidance": "random"}, {"autoflip-guidance": "exploration"}),
    (["channel-floor"], "autoflip", {}, {"autoflip-mode": "structured"}),
    (["fedgkt-temperature"], "fedgkt", {"fedgkt-alpha": 0.0}, {"fedgkt-alpha": 0.5}),
    (["fednas-lowest-learning-rate"], "fednas", {"local-epochs": "1"}, {"local-epochs": "2"}),
    (ARCHITECTURE, "fednas", STILL, {"fednas-validation-coefficient": 1.0}),
    *((["distillation-learning-rate"], method, {}, {"distillation-epochs": 1}) for method in ("dac", "heterofl")),
    ([*SEARCH, "max-cohorts", "search-batch-size"], "dac", SOURCED, {"architectures": ""}),
    (["search-batch-size"], "dac", SOURCED, {"distillation-epochs": 1}),
    (list(FEDNAS_SEARCH), "fednas", {"fednas-genotype": "FedNAS_V1"}, {"fednas-genotype": ""}),
    *((["pretraining-epochs"], method, RANDOM, {"initial-weights": "inherited"}) for method in NOT_SEARCHED),
    *((PRETRAINING, method, RANDOM, {"initial-weights": "inherited"}) for method in NOT_SEARCHED),
    *((PRETRAINING, method, UNTRAINED, {"pretraining-epochs": 2}) for method in NOT_SEARCHED),
    (["recipe", "fine-tune-epochs", "joint-epochs"], "heterofl", UNTRAINED, {"pretraining-epochs": 2}),
    (["search-batch-size"], "heterofl", UNTRAINED, {"distillation-epochs": 1}),
]
WITHOUT_CASES = [
    (key, method, *rest) for keys, method, *rest in WITHOUT for key in keys if CONTRACTS[method].reads_setting(key)
]


@pytest.mark.parametrize(("key", "method", "broken", "mended"), WITHOUT_CASES)
def test_a_setting_that_another_leaves_nothing_to_do_is_refused_by_name(
    key: str, method: str, broken: dict[str, Scalar], mended: dict[str, Scalar]
) -> None:
    settings = {"method": method, key: changed_value(key), **broken}
    with pytest.raises(ConfigurationError) as caught:
        require_effect(Config.from_mapping(settings))
    line = str(caught.value)
    assert line.startswith(f"{key} = {changed_value(key)!r} would have no effect with")
    assert line.endswith(f": leave --{key} out")
    assert key not in without_effect(Config.from_mapping({**settings, **mended}))
    require_effect(Config.from_mapping({"method": method, **broken}))


def test_every_condition_is_tried() -> None:
    tried = {(key, method) for key, method, *_ in WITHOUT_CASES}
    tried.add(("batch-norm", "heterofl"))  # whose cohorts always average with each other
    for condition in CONDITIONS:
        for method in (name for name, one in CONTRACTS.items() if not condition.of or one.reads_setting(condition.of)):
            assert {key for key in condition.keys if CONTRACTS[method].reads_setting(key)} <= {
                key for key, by in tried if by == method
            }


@pytest.mark.parametrize("method", CONTRACTS)
def test_a_changed_setting_is_read_or_refused_by_name(method: str) -> None:
    for key in FIELDS:
        if key != "method":
            assert_read_or_refused(method, key)


def assert_read_or_refused(method: str, key: str) -> None:
    config = Config.from_mapping({"method": method, key: changed_value(key)})
    assert config.to_mapping()[key] != Config().to_mapping()[key]
    if CONTRACTS[method].reads_setting(key):
        for setting in without_effect(config):  # only for want of another setting, see below
            assert any(setting in one.keys for one in CONDITIONS)
        return
    with pytest.raises(ConfigurationError) as caught:
        require_effect(config)
    line = str(caught.value)
    assert line.startswith(f"method {method} does not read {key}, so {key} = ")
    assert f"leave --{key} out" in line
    readers = [name for name, contract in CONTRACTS.items() if contract.reads_setting(key)]
    assert f"or take --method {' or '.join(readers)}" in line


def test_every_setting_is_read_by_some_method_and_every_method_reads_known_settings() -> None:
    for key in FIELDS:
        assert any(contract.reads_setting(key) for contract in CONTRACTS.values()), key
    for contract in CONTRACTS.values():
        assert contract.reads <= set(FIELDS), contract.name


def test_defaults_are_never_refused() -> None:
    for method in CONTRACTS:
        require_effect(Config.from_mapping({**Config().to_mapping(), "method": method}))


@pytest.mark.parametrize("key", ["architectures", "aggregation", "warmup-epochs"])
def test_what_only_dac_reads_is_refused_with_heterofl(key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"method heterofl does not read {key}, .* take --method dac$"):
        require_effect(Config.from_mapping({"method": "heterofl", key: changed_value(key)}))
