"""Devices that cannot take part in a method: told of, recorded, and left out."""

from collections.abc import Callable, Sequence

from common.budget import DeviceBudget
from common.errors import BudgetError
from server.devices import Device
from server.run import Run


def keep_able(devices: Sequence[Device], check: Callable[[DeviceBudget], object], run: Run) -> list[Device]:
    """The devices for whose budget `check` raises no BudgetError; the others are refused.

    Raises the first BudgetError if no device can take part.
    """
    able: list[Device] = []
    first: BudgetError | None = None
    for device in devices:
        try:
            check(device.budget)
            able.append(device)
        except BudgetError as error:
            first = first or error
            refuse(device, str(error), run)
    if first is not None and not able:
        raise first
    return able


def refuse(device: Device, reason: str, run: Run) -> None:
    """Tell, and record as an event of round 0, that a device does not take part."""
    run.progress.note(f"{device.name} is left out: {reason}")
    run.folder.append("device", round=0, device=device.name, cohort="", status="rejected", seconds=0, reason=reason)
