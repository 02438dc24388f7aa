"""The devices that take part: what each reported, and the order and the names they go by."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from common.budget import Costs, DeviceBudget
from common.handshake import DeviceReport
from server.budget_entries import BudgetEntry


@dataclass(frozen=True)
class Device:
    """A device that reported. Its name is its identity; the node id is where it can be reached in this process."""

    node_id: int
    report: DeviceReport

    @classmethod
    def of(cls, entry: BudgetEntry) -> Self:
        """The device of a line in budgets.json, which does not say where it can be reached, nor what it holds out."""
        return cls(0, DeviceReport(entry.name, entry.profile, entry.partition, entry.samples, entry.budget))

    @property
    def name(self) -> str:
        """The name in metrics and checkpoints."""
        return self.report.name

    @property
    def budget(self) -> DeviceBudget:
        """Bounds its architecture must stay below."""
        return self.report.budget

    @property
    def order(self) -> tuple[int, str]:
        """Sorts devices the same way in every run, which node ids, drawn at random, would not."""
        return self.report.partition, self.report.name

    def entry(self, cohort: str = "", costs: Costs | None = None) -> BudgetEntry:
        """The device's line in budgets.json; `costs` are those of its cohort's network."""
        report, uses = self.report, (0, 0.0)
        if costs is not None:
            uses = int(self.budget.amount(costs, "training_memory_bytes")), self.budget.latency_ms(costs)
        return BudgetEntry(report.name, report.budget, report.profile, report.partition, report.samples, cohort, *uses)


def without_duplicates(devices: Iterable[Device]) -> tuple[list[Device], list[Device]]:
    """(accepted, refused), both in canonical order: of several devices of one name the lowest partition is accepted.

    Among equal partitions the report decides, so that the choice does not depend on who answered first.
    """

    def key(device: Device) -> tuple[tuple[int, str], int, str, str]:
        report = device.report
        return device.order, report.samples, report.profile, repr(report.budget)

    accepted: dict[str, Device] = {}
    refused = []
    for device in sorted(devices, key=key):
        if device.name in accepted:
            refused.append(device)
        else:
            accepted[device.name] = device
    return list(accepted.values()), refused
