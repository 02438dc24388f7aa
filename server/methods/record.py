"""What every method leaves in the run folder: its architectures, and the devices it refused."""

from collections.abc import Callable, Sequence

from common.budget import DeviceBudget
from common.errors import BudgetError
from common.progress import Progress
from dac.files import Member, save_member
from server.cohorts import Cohort
from server.devices import Device
from server.run_folder import RunFolder


def record_architecture(
    folder: RunFolder, cohort: Cohort, member: Member, seed: int, parent: str | None = None
) -> None:
    """Write the cohort's architecture file, with the weights of `member`, and its event in the metrics."""
    save_member(
        folder.architecture_path(cohort.name),
        member,
        name=cohort.name,
        parent=parent,
        seed=seed,
        stage="before-federation",
        preparation=folder.preparation,
    )
    costs = cohort.architecture.costs
    folder.append(
        "architecture",
        round=0,
        cohort=cohort.name,
        macs=costs.macs,
        params=costs.params,
        peak_memory_bytes=costs.peak_memory_bytes,
        validation_accuracy=cohort.search_accuracy,
    )


def keep_able(
    devices: Sequence[Device], check: Callable[[DeviceBudget], object], folder: RunFolder, progress: Progress
) -> list[Device]:
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
            refuse(device, str(error), folder, progress)
    if first is not None and not able:
        raise first
    return able


def refuse(device: Device, reason: str, folder: RunFolder, progress: Progress) -> None:
    """Tell, and record as an event of round 0, that a device does not take part."""
    progress.note(f"{device.name} is left out: {reason}")
    folder.append("device", round=0, device=device.name, cohort="", status="rejected", seconds=0, reason=reason)
