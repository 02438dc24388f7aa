"""One definition of every setting: what Flower, TOML and the command line carry comes out typed and within limits."""

import dataclasses
import math
import tomllib
from dataclasses import dataclass
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from common.config import GROUPS, METHOD_GROUPS, SHARED, Config
from common.effects import require_effect
from common.errors import ConfigurationError
from common.groups import FederationSettings, FleetSettings, ModelSettings, RunSettings
from common.methods import CONTRACTS
from common.methods.contract import AVERAGED, Contract
from common.methods.dac import DACSettings
from common.methods.fedavg import FedAvgSettings
from common.methods.fedprox import FedProxSettings
from common.settings import LARGEST_WHOLE, Settings, key_of, name_of, setting

FIELDS = [(group, one) for group in GROUPS for one in dataclasses.fields(group)]  # type: ignore[arg-type]
IDS = [key_of(one.name) for _, one in FIELDS]

# for each text setting without a list of choices, a valid value that is not its default
TEXTS = {
    "architectures": "family",
    "data": "cifar10",
    "model": "torchvision:resnet18",
    "data_folder": "/data",
    "partition": "dirichlet:0.5",
    "strides": "1,2,2,2,1,2,1",
    "fedgkt_server_epochs": "20,10@31",
    "fleet": "phone",
    "max_macs": "30M",
    "max_params": "1.2e6",
    "max_memory": "512KB",
    "max_training_memory": "8MB",
    "fednas_genotype": "cells.json",
    "method": "fedprox",
    "local_epochs": "3-5",
    "out": "runs/one",
}


def valid_value(one: Any) -> Any:
    """A value of the field that is allowed and not its default."""
    if one.metadata["choices"]:
        return next(choice for choice in one.metadata["choices"] if choice != one.default)
    if isinstance(one.default, bool):
        return not one.default
    if isinstance(one.default, int):
        return one.default + 1 if one.metadata["maximum"] is None else one.metadata["maximum"]
    if isinstance(one.default, float):
        return one.default / 2 if one.default else 0.5
    return TEXTS[one.name]


@pytest.mark.parametrize(("group", "one"), FIELDS, ids=IDS)
def test_every_setting_has_help_and_survives_a_round_trip(group: type[Settings], one: Any) -> None:
    value = valid_value(one)
    settings = group.from_mapping({key_of(one.name): value})
    assert getattr(settings, one.name) == value != one.default
    assert group.from_mapping(settings.to_mapping()) == settings
    whole = Config.from_mapping({key_of(one.name): value})
    assert Config.from_mapping(tomllib.loads(tomli_w.dumps(whole.to_mapping()))) == whole
    assert one.metadata["help"].endswith(".")


def test_keys_are_kebab_case_and_unique_over_all_groups() -> None:
    keys = list(Config().to_mapping())
    assert keys == [key for group in GROUPS for key in group.keys()]  # noqa: SIM118
    assert len(set(keys)) == len(keys)
    assert all(key_of(name_of(key)) == key and "_" not in key for key in keys)


def test_a_missing_key_keeps_its_default() -> None:
    assert Config.from_mapping({}) == Config()
    assert Config.from_mapping({"rounds": 3}).federation == FederationSettings(rounds=3)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("local-epoch", "local-epochs"),
        ("max_macs", "max-macs"),
        ("Rounds", "rounds"),
        ("learning-rat", "learning-rate"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError, match=f"unknown setting '{wrong}': did you mean '{right}'"):
        Config.from_mapping({wrong: 1})


def test_a_key_near_none_lists_them_all() -> None:
    with pytest.raises(ConfigurationError, match="known keys are seed, out, accelerator"):
        RunSettings.from_mapping({"zzzzzz": 1})


@pytest.mark.parametrize(("group", "one"), FIELDS, ids=IDS)
def test_every_limit_is_enforced_and_names_its_key(group: type[Settings], one: Any) -> None:
    limits, bad = one.metadata, []
    if limits["minimum"] is not None:
        bad.append((limits["minimum"] - 1, f"at least {limits['minimum']:g}"))
        assert getattr(group(**{one.name: limits["minimum"]}), one.name) == limits["minimum"]
    if limits["above"] is not None:
        bad += [(limits["above"], f"above {limits['above']:g}"), (limits["above"] - 0.1, "above")]
    if type(one.default) is int and limits["maximum"] is None:
        bad.append((LARGEST_WHOLE + 1, f"at most {LARGEST_WHOLE:g}"))
    if limits["maximum"] is not None:
        bad.append((limits["maximum"] + 1, f"at most {limits['maximum']:g}"))
        assert getattr(group(**{one.name: limits["maximum"]}), one.name) == limits["maximum"]
    if limits["choices"]:
        bad.append(("no-such-choice", f"one of {', '.join(limits['choices'])}"))
    if limits["pattern"]:
        bad.append(("no such form", f"see the help of --{key_of(one.name)}"))
    for value, message in bad:
        with pytest.raises(ConfigurationError) as caught:
            group.from_mapping({key_of(one.name): value})
        assert key_of(one.name) in str(caught.value)
        assert message in str(caught.value)


NONSENSE: tuple[Any, ...] = ("abc", "", "nan", math.nan, math.inf, "-inf", None, [1], True, {})
NUMBERS = [(group, one) for group, one in FIELDS if type(one.default) in (int, float)]


@pytest.mark.parametrize(("group", "one"), NUMBERS, ids=[key_of(one.name) for _, one in NUMBERS])
def test_numbers_refuse_what_is_not_a_finite_number(group: type[Settings], one: Any) -> None:
    for value in NONSENSE:
        with pytest.raises(ConfigurationError, match=f"^{key_of(one.name)} must be"):
            group.from_mapping({key_of(one.name): value})


@pytest.mark.parametrize("value", [1.5, "1.5", "1e3"])
def test_whole_numbers_are_not_rounded(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="rounds must be a whole number"):
        FederationSettings(rounds=value)


def test_flower_carries_ints_for_floats_and_text_from_the_command_line() -> None:
    settings = FederationSettings(learning_rate=1, rounds="7", momentum="0.9", evaluate_every=2.0)  # type: ignore[arg-type]
    assert (settings.learning_rate, settings.rounds, settings.momentum, settings.evaluate_every) == (1.0, 7, 0.9, 2)
    assert [type(settings.learning_rate), type(settings.rounds), type(settings.evaluate_every)] == [float, int, int]


@pytest.mark.parametrize(
    ("value", "expected"), [(True, True), (1, True), ("1", True), ("TRUE", True), (0, False), ("false", False)]
)
def test_booleans_are_read_from_words_and_digits(value: Any, expected: bool) -> None:
    assert FederationSettings(device_evaluation=value).device_evaluation is expected


@pytest.mark.parametrize("value", [2, -1, "yes", "", None, 0.5, []])
def test_other_booleans_are_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="device-evaluation must be true or false"):
        FederationSettings(device_evaluation=value)


def test_text_may_be_written_as_a_number_but_not_as_nothing() -> None:
    assert FederationSettings(local_epochs=3).local_epochs == "3"  # type: ignore[arg-type]
    assert FleetSettings(max_macs=30_000_000).max_macs == "30000000"  # type: ignore[arg-type]
    wrong: list[Any] = [None, True, ["30M"], {}]
    for value in wrong:
        with pytest.raises(ConfigurationError, match="max-macs must be text"):
            FleetSettings(max_macs=value)


def test_a_64_bit_seed_is_taken_exactly() -> None:
    assert RunSettings(seed=2**63 - 1).seed == 2**63 - 1
    assert RunSettings(seed=str(2**53 + 1)).seed == 2**53 + 1  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "partition", ["iid", "dirichlet:0.1", "classes:2", "shards:2", "paper-iid:300", "paper-shards:20"]
)
def test_partitions_of_the_help_text(partition: str) -> None:
    assert Config.from_mapping({"partition": partition}).data.partition == partition


@pytest.mark.parametrize(
    "strides", ["1,1,2,2,1,2", "1,1,2,2,1,2,0", "1,1,2,2,1,2,5", "1 1 2 2 1 2 1", "1,1,2,2,1,2,1\n"]
)
def test_strides_are_seven_small_numbers(strides: str) -> None:
    with pytest.raises(ConfigurationError, match="strides cannot be"):
        ModelSettings(strides=strides)


def test_settings_cannot_change_after_the_check() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.seed = 1  # type: ignore[misc]


# ---- settings of the methods


@dataclass(frozen=True)
class MySettings(Settings):
    """The settings of a method that a user brings."""

    my_share: float = setting(0.5, "A share.", above=0.0, maximum=1.0)


class Mine(Contract):
    """A method that a user brings."""

    name = "mine"
    settings = MySettings
    reads = AVERAGED - {"masked-loss"}
    server = "nowhere:Nothing"
    device = "nowhere:STEPS"


MINE = f"{__name__}:Mine"
NO_CONTRACT = 5


def test_each_method_has_its_settings_in_every_configuration() -> None:
    config = Config.from_mapping({"method": "fedavg", "proximal-coefficient": 2, "architectures": "family"})
    assert config.of(FedProxSettings) == FedProxSettings(proximal_coefficient=2.0)
    assert config.of(DACSettings).architectures == "family"
    assert config.of(FedAvgSettings) == FedAvgSettings()
    assert {one.name for one in CONTRACTS.values()} == set(CONTRACTS)


def test_a_method_of_ones_own_brings_its_settings_as_ours_do() -> None:
    config = Config.from_mapping({"method": MINE, "my-share": "0.25", "rounds": 3})
    assert config.of(MySettings) == MySettings(0.25)
    assert config.to_mapping()["my-share"] == 0.25
    assert Config.from_mapping(tomllib.loads(tomli_w.dumps(config.to_mapping()))) == config
    with pytest.raises(ConfigurationError, match="my-share must be at most 1, not 2"):
        Config.from_mapping({"method": MINE, "my-share": 2})
    with pytest.raises(ConfigurationError, match="unknown setting 'my-shar': did you mean 'my-share'"):
        Config.from_mapping({"method": MINE, "my-shar": 0.25})
    with pytest.raises(ConfigurationError, match="unknown setting 'my-share'"):
        Config.from_mapping({"my-share": 0.25})
    with pytest.raises(LookupError, match="no method of this run has MySettings"):
        Config().of(MySettings)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("fedavgg", "method must be one of dac, .* or package.module:Class, not 'fedavgg': did you mean 'fedavg'"),
        ("zzz", f"method must be one of {', '.join(CONTRACTS)} or package.module:Class, not 'zzz'$"),
        ("no.such.module:Class", "method no.such.module:Class cannot be imported here: No module named"),
        ("common.methods.dac:Class", "method common.methods.dac:Class cannot be imported here: .*'Class'"),
        ("common.methods.dac:DACSettings", "is not a class that derives from common.methods.contract.Contract"),
        (f"{__name__}:NO_CONTRACT", "is not a class that derives from common.methods.contract.Contract"),
        ("no such form", "see the help of --method"),
        ("module:Class\n", "see the help of --method"),
        ("a/b:Class", "see the help of --method"),
    ],
)
def test_a_method_that_cannot_be_is_named(method: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Config.from_mapping({"method": method})


@pytest.mark.parametrize(("group", "one"), FIELDS, ids=IDS)
def test_changing_one_setting_changes_no_other(group: type[Settings], one: Any) -> None:
    before = Config.from_mapping({"seed": 7, "proximal-coefficient": 0.3})
    key, value = key_of(one.name), valid_value(one)
    after = before.changed({key: value})
    assert after.to_mapping() == {**before.to_mapping(), key: value}
    assert before == Config.from_mapping({"seed": 7, "proximal-coefficient": 0.3})


def test_a_change_is_checked_like_any_setting() -> None:
    with pytest.raises(ConfigurationError, match="rounds must be at least 0"):
        Config().changed({"rounds": -1})
    with pytest.raises(ConfigurationError, match="unknown setting 'round': did you mean 'rounds'"):
        Config().changed({"round": 1})
    config = Config().changed({"method": MINE, "my-share": 1})
    assert config.changed({"rounds": 3}).of(MySettings) == MySettings(1.0)


def test_every_group_is_either_shared_or_a_methods() -> None:
    assert (*SHARED.values(), *METHOD_GROUPS) == GROUPS
    assert len(set(GROUPS)) == len(GROUPS)
    assert all(type(getattr(Config(), name)) is group for name, group in SHARED.items())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"method": "fedavg", "proximal-coefficient": 0.5}, "take --method fedprox$"),
        ({"method": "fedavg", "architectures": "family"}, "take --method dac$"),
        ({"method": "dac", "fedavg-model": "largest"}, "take --method fedavg or fedprox"),
        ({"method": "dac", "pretraining-epochs": 1}, "take --method fedavg or fedprox or heterofl"),
        ({"method": "heterofl", "warmup-epochs": 1}, "take --method dac$"),
        ({"method": "fedavg", "max-cohorts": 2}, "take --method dac or heterofl$"),
        ({"method": MINE, "masked-loss": "zero"}, "method mine does not read masked-loss, so masked-loss = 'zero'"),
    ],
)
def test_what_has_no_effect_is_refused_with_the_methods_that_read_it(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        require_effect(Config.from_mapping(settings))
    require_effect(Config.from_mapping({"method": MINE, "my-share": 0.25, "rounds": 3}))
    require_effect(Config())


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**400)


@given(st.sampled_from(FIELDS), scalars | st.lists(scalars, max_size=2))
def test_any_value_is_taken_with_its_type_or_refused(field: Any, value: Any) -> None:
    group, one = field
    try:
        settings = group.from_mapping({key_of(one.name): value})
    except ConfigurationError:
        return
    assert type(getattr(settings, one.name)) is type(one.default)
    assert group.from_mapping(settings.to_mapping()) == settings
