"""All settings of a federated run: the shared groups and those of the methods.

Each field is at the same time a command-line flag (`--local-epochs`), a key of a `--config` TOML file, and a key of
`[tool.flwr.app.config]` (`local-epochs`). Flower carries only int, float, bool and str and checks none of them, so
`from_mapping` coerces and validates whatever it is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self, TypeVar, get_type_hints

from common.groups import (
    DataSettings,
    FederationSettings,
    FleetSettings,
    MethodSettings,
    ModelSettings,
    RunSettings,
    SearchSettings,
)
from common.methods import CONTRACTS, contract_of
from common.settings import Scalar, Settings, check_known

Group = TypeVar("Group", bound=Settings)

METHOD_GROUPS: tuple[type[Settings], ...] = tuple(one.settings for one in CONTRACTS.values() if one.settings)


@dataclass(frozen=True)
class Config:
    """All settings of a federated run; `own` holds those of the methods, read by `of`."""

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    federation: FederationSettings = field(default_factory=FederationSettings)
    run: RunSettings = field(default_factory=RunSettings)
    own: tuple[Settings, ...] = tuple(group() for group in METHOD_GROUPS)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """A configuration from flat kebab-case keys; raises ConfigurationError as `Settings.from_mapping` does."""
        own = list(METHOD_GROUPS)
        contract = contract_of(MethodSettings.picked_from(mapping).method)
        if contract.settings is not None and contract.settings not in own:
            own.append(contract.settings)
        check_known(mapping, chain.from_iterable(group.keys() for group in (*SHARED.values(), *own)))
        shared: dict[str, Any] = {name: group.picked_from(mapping) for name, group in SHARED.items()}
        return cls(**shared, own=tuple(group.picked_from(mapping) for group in own))

    def of(self, group: type[Group]) -> Group:
        """The settings of a method's own group; LookupError for a group that no method here has."""
        for one in self.own:
            if isinstance(one, group):
                return one
        raise LookupError(f"no method of this run has {group.__name__}")

    def to_mapping(self) -> dict[str, Scalar]:
        """Flat `key: value` pairs in the order of the groups."""
        groups = (*(getattr(self, name) for name in SHARED), *self.own)
        return {key: value for group in groups for key, value in group.to_mapping().items()}

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The same settings but for these kebab-case keys."""
        return type(self).from_mapping({**self.to_mapping(), **changes})


SHARED: Mapping[str, type[Settings]] = {name: kind for name, kind in get_type_hints(Config).items() if name != "own"}
GROUPS: tuple[type[Settings], ...] = (*SHARED.values(), *METHOD_GROUPS)
