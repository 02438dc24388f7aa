"""The lines of budgets.json: what each device can afford, or what a search was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from common.budget import DeviceBudget

TEXTS, NUMBERS = ("name", "profile", "cohort"), ("partition", "samples")
USES = ("training_memory_bytes_used", "latency_ms_used")


@dataclass(frozen=True)
class BudgetEntry:
    """A device with its budget, or a budget of a search with the name that its architecture will have.

    `profile`, `partition`, `samples` (training images) and `cohort` are a device's; `cohort` is "" for one that was
    refused. `training_memory_bytes_used` and `latency_ms_used` are what the cohort's network takes there, if the device
    bounds it, and else 0.
    """

    name: str
    budget: DeviceBudget
    profile: str = ""
    partition: int = 0
    samples: int = 0
    cohort: str = ""
    training_memory_bytes_used: int = 0
    latency_ms_used: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON; the budget as `DeviceBudget.to_dict` has it."""
        own = {key: getattr(self, key) for key in (*TEXTS, *NUMBERS)}
        own |= {key: getattr(self, key) for key in USES if getattr(self, key)}
        return {**own, **self.budget.to_dict()}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse; a key that is missing has its default, others are not looked at.

        Raises ValueError for a value of the wrong kind, BudgetError for an impossible bound.
        """
        for kind, keys in ((str, TEXTS), (int, NUMBERS), ((int, float), USES)):
            for key in keys:
                value = entry.get(key, "" if kind is str else 0)
                if not isinstance(value, kind) or isinstance(value, bool):
                    raise ValueError(f"{key} cannot be {value!r:.60}")
        own = {key: entry[key] for key in (*TEXTS, *NUMBERS, *USES) if key in entry and key != "name"}
        return cls(entry.get("name", ""), DeviceBudget.from_dict(entry), **own)
