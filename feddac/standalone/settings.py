"""The settings of `feddac search` and `feddac train`, which have no federation. Flags are made of it: no torch here."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

from common.groups import FEDERATED, DataSettings, ModelSettings, RunSettings, SearchSettings, TrainSettings
from common.settings import Scalar, Settings, check_known, key_of, keys_of

Groups: TypeAlias = Sequence[type[Settings]]

SEARCH = (DataSettings, ModelSettings, SearchSettings, RunSettings)
TRAIN = (DataSettings, ModelSettings, TrainSettings, RunSettings)


def own(settings: Mapping[str, Any], groups: Groups) -> dict[str, Any]:
    """Those of the kebab-case settings that are of `groups` and mean something without a federation, in their order."""
    known = keys_of(*groups).difference(map(key_of, FEDERATED))
    return {key: value for key, value in settings.items() if key in known}


def whole(settings: Mapping[str, Any], groups: Groups) -> dict[str, Scalar]:
    """Every setting of `groups` that means something without a federation, those that are not given by their defaults.

    Raises ConfigurationError for a bad value.
    """
    return own(
        {key: value for group in groups for key, value in group.picked_from(settings).to_mapping().items()}, groups
    )


def checker(groups: Groups) -> Callable[[Mapping[str, Any]], None]:
    """A check that a configuration file holds nothing but valid settings of `groups`.

    Those of a federation's data pass, so that one file may serve all commands.
    """

    def check(mapping: Mapping[str, Any]) -> None:
        check_known(mapping, chain.from_iterable(group.keys() for group in groups))
        for group in groups:
            group.picked_from(mapping)

    return check
