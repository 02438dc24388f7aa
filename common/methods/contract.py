"""What the two halves of a method, on the server and on the devices, must agree on."""

import math
from collections.abc import Mapping
from typing import ClassVar, TypeAlias

from common.groups import (
    DataSettings,
    FederationSettings,
    FleetSettings,
    ModelSettings,
    RunSettings,
    SearchSettings,
)
from common.settings import Settings, keys_of

Limits: TypeAlias = Mapping[str, tuple[float, float]]


class Contract:
    """Base of a method's contract; a method of your own is named by the class that derives from this.

    `name` is what messages and run folders call the method. `settings` is a group of the method's own settings, which
    become flags and keys like all others. `reads` are the keys of all settings that the method reads beside its own; a
    run in which another one was changed is refused. `weight_limits` are the lowest and the highest value, inclusive,
    that weights may have, by the last part of their tensor's name; others may have any. The rest says as `module:name`
    where things are, so that nothing is imported before it is needed: `network` is the class of the networks that
    travel to the devices (see `common.network`; those that a run saves, `Method.models`, are Architectures), `server` a
    class with the calls of `server.methods.method.Method`, and `device` a mapping from the name of a step to a function
    (see `client.steps`).
    """

    name: ClassVar[str]
    settings: ClassVar[type[Settings] | None] = None
    reads: ClassVar[frozenset[str]]
    weight_limits: ClassVar[Limits] = {"running_var": (0.0, math.inf)}
    network: ClassVar[str] = "common.architecture:Architecture"
    server: ClassVar[str]
    device: ClassVar[str]

    @classmethod
    def reads_setting(cls, key: str) -> bool:
        """Whether a setting, by its kebab-case key, is one that the method reads."""
        return key in cls.reads or (cls.settings is not None and key in cls.settings.keys())  # noqa: SIM118


AVERAGED = (
    keys_of(DataSettings, ModelSettings, FleetSettings, FederationSettings, RunSettings)
    .union(("method", "batch-norm", "masked-loss"))
    .difference(("max-cohorts",))
)
"""What every method reads whose devices train a model that is averaged."""

PRETRAINED = frozenset(
    ("pretraining-epochs", *(f"search-{key}" for key in ("learning-rate", "batch-size", "momentum", "weight-decay")))
)
"""What a method reads that trains its model on the reference set before the first round."""

SEVERAL_COHORTS = frozenset(("max-cohorts", "distillation-epochs", "distillation-learning-rate"))
"""What a method reads that has an architecture per budget."""

SEARCHED = keys_of(SearchSettings)
"""What the search reads."""
