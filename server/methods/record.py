"""What every method leaves in the run folder: its architectures, and the devices it refused."""

from common.costs import costs_of
from common.progress import Progress
from dac.files import Member, save_member
from server.cohorts import Cohort
from server.devices import Device
from server.run_folder import RunFolder


def record_architecture(
    folder: RunFolder, cohort: Cohort, member: Member, seed: int, parent: str | None = None
) -> None:
    """Write the cohort's architecture file, with the weights of `member`, and its event in the metrics."""
    save_member(folder.architecture_path(cohort.name), member, name=cohort.name, parent=parent, seed=seed)
    costs = costs_of(cohort.architecture)
    folder.append(
        "architecture",
        round=0,
        cohort=cohort.name,
        macs=costs.macs,
        params=costs.params,
        peak_memory_bytes=costs.peak_memory_bytes,
        validation_accuracy=cohort.search_accuracy,
    )


def refuse(device: Device, reason: str, folder: RunFolder, progress: Progress) -> None:
    """Tell, and record as an event of round 0, that a device does not take part."""
    progress.note(f"{device.name} is left out: {reason}")
    folder.append("device", round=0, device=device.name, cohort="", status="rejected", seconds=0, reason=reason)
