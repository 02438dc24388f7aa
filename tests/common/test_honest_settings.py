"""A setting that the chosen method does not read is refused by name: nothing is silently without effect."""

import dataclasses
from typing import Any

import pytest

from common.config import GROUPS, Config, require_read
from common.errors import ConfigurationError
from common.methods import CONTRACTS
from common.settings import Scalar, key_of

FIELDS = {key_of(one.name): one for group in GROUPS for one in dataclasses.fields(group)}  # type: ignore[arg-type]
PATTERNED: dict[str, Scalar] = {
    "partition": "dirichlet:0.5",
    "strides": "1,1,1,1,1,1,1",
    "fedgkt-server-epochs": "20,10@31",
    "local-epochs": "3",
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


CASES = [(method, key) for method in CONTRACTS for key in FIELDS if key != "method"]


@pytest.mark.parametrize(("method", "key"), CASES)
def test_a_changed_setting_is_read_or_refused_by_name(method: str, key: str) -> None:
    config = Config.from_mapping({"method": method, key: changed_value(key)})
    assert config.to_mapping()[key] != Config().to_mapping()[key]
    if CONTRACTS[method].reads_setting(key):
        require_read(config)
        return
    with pytest.raises(ConfigurationError) as caught:
        require_read(config)
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
        require_read(Config.from_mapping({**Config().to_mapping(), "method": method}))


@pytest.mark.parametrize("key", ["architectures", "aggregation", "warmup-epochs"])
def test_what_only_dac_reads_is_refused_with_heterofl(key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"method heterofl does not read {key}, .* take --method dac$"):
        require_read(Config.from_mapping({"method": "heterofl", key: changed_value(key)}))
