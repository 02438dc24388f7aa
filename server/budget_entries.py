"""The lines of budgets.json: what each device can afford, or what a search was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from common.budget import RESOURCES, DeviceBudget

TEXTS, NUMBERS = ("name", "profile", "cohort"), ("partition", "samples")


@dataclass(frozen=True)
class BudgetEntry:
    """A device with its budget, or a budget of a search with the name that its architecture will have.

    `profile`, `partition`, `samples` (training images) and `cohort` are a device's; `cohort` is "" for one that was
    refused.
    """

    name: str
    budget: DeviceBudget
    profile: str = ""
    partition: int = 0
    samples: int = 0
    cohort: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON; a bound is None where there is none."""
        own = {key: getattr(self, key) for key in (*TEXTS, *NUMBERS)}
        return {**own, **{resource: getattr(self.budget, resource) for resource in RESOURCES}}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse; a key that is missing has its default, others are not looked at.

        Raises ValueError for a value of the wrong kind, BudgetError for an impossible bound.
        """
        for kind, keys in ((str, TEXTS), (int, NUMBERS)):
            for key in keys:
                value = entry.get(key, kind())
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise ValueError(f"{key} cannot be {value!r:.60}")
        own = {key: entry[key] for key in (*TEXTS, *NUMBERS) if key in entry and key != "name"}
        return cls(entry.get("name", ""), DeviceBudget(*(entry.get(resource) for resource in RESOURCES)), **own)
