"""Architecture files: those of a run's cohorts, and those found before, which are read instead of searched for."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import ArchitectureError, BudgetError, ConfigurationError
from common.models.description import BaseNetwork
from dac.files import Member, load_member, save_member
from server.cohorts import Cohort
from server.devices import Device
from server.methods.refusals import refuse
from server.run import Run
from server.run_folder import RunFolder


def read_members(path: Path, base: BaseNetwork, one_base: bool) -> list[Member]:
    """The architectures in the file `path`, or in every *.json file of the folder `path`, in the order of their names.

    Of a run's folder, such as a search's, those that the run has found. They must take the images and tell the classes
    of `base`, and with `one_base` be cut from one base network. Raises ConfigurationError if there is no file,
    ArchitectureError naming the file that is damaged or does not fit.
    """
    files = files_at(path)
    members = [_read(file, base) for file in files]
    for file, member in zip(files, members, strict=True):
        if one_base and member.architecture.base != members[0].architecture.base:
            raise ArchitectureError(
                f"{file} is cut from another base network than {files[0]}, so their weights cannot be averaged; use "
                "--aggregation cohort or architectures of one search"
            )
    return members


def files_at(path: Path) -> list[Path]:
    """The architecture files that `read_members` reads, sorted; raises ConfigurationError if there are none."""
    run = RunFolder(path)
    if run.config_path.is_file():
        path = run.architectures_folder
    if path.is_dir():
        files = sorted(one for one in path.glob("*.json") if not one.name.startswith("."))
        if not files:
            raise ConfigurationError(f"architectures: the folder {path} holds no architecture file (*.json)")
        return files
    if not path.exists():
        raise ConfigurationError(f"architectures: there is no file or folder {path}; feddac search writes them")
    return [path]


def choose_members(devices: Sequence[Device], members: Sequence[Member], run: Run) -> tuple[list[Device], list[Member]]:
    """The devices that can hold one of `members`, and for each the largest in MACs; the others are refused.

    Raises BudgetError, naming the smallest one's costs, if no device is left.
    """
    smallest = min(members, key=lambda member: member.architecture.costs.macs).architecture.costs
    fitting, chosen = [], []
    for device in devices:
        held = [member for member in members if device.budget.admits(member.architecture.costs)]
        if held:
            fitting.append(device)
            chosen.append(max(held, key=lambda member: member.architecture.costs.macs))
        else:
            reason = f"a budget {device.budget} admits none of the given architectures, of which the smallest"
            refuse(device, f"{reason} needs {smallest}", run)
    if not fitting:
        raise BudgetError(f"no device can hold any of the given architectures, of which the smallest needs {smallest}")
    return fitting, chosen


def record_architecture(
    run: Run, cohort: Cohort, member: Member, parent: str | None = None, *, number: int = 0
) -> None:
    """Write the cohort's architecture file, with the weights of `member`, and its event of round `number`."""
    save_member(
        run.folder.architecture_path(cohort.name),
        member,
        name=cohort.name,
        parent=parent,
        seed=run.seed,
        stage="before-federation",
        preparation=run.reference.preparation,
    )
    costs = member.architecture.costs
    run.folder.append(
        "architecture",
        round=number,
        cohort=cohort.name,
        macs=costs.macs,
        params=costs.params,
        peak_memory_bytes=costs.peak_memory_bytes,
        validation_accuracy=cohort.search_accuracy,
    )


def _read(file: Path, base: BaseNetwork) -> Member:
    try:
        member = load_member(file)
    except ArchitectureError as error:
        text = str(error)
        raise ArchitectureError(text if str(file) in text else f"{file}: {text}") from None
    own = member.architecture.base
    if (own.input_shape, own.classes) != (base.input_shape, base.classes):
        raise ArchitectureError(
            f"{file} is for images of shape {own.input_shape} in {own.classes} classes, but the data set has "
            f"{base.input_shape} in {base.classes}; use architectures that were searched for it"
        )
    return member
