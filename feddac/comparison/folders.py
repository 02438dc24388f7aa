"""The run folders of a plan: made where there are none, and refused where they hold work done with something else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config import Config
from common.errors import ConfigurationError
from common.fleet import is_fleet_file
from common.groups import AUTO_STEM, AUTO_STRIDES
from common.settings import Scalar
from feddac.comparison.file_contents import FileContents, read_contents, write_contents
from feddac.comparison.plan import PlannedRun
from server.run_folder import RunFolder

PLACES = ("out", "data-folder")
"""Settings in which a run that is there already may differ from the plan."""


@dataclass(frozen=True)
class Unprepared:
    """A run whose folder is not there, or not as the plan has it, and what the files hold that it reads."""

    run: PlannedRun
    contents: Mapping[str, str]


def check_folders(runs: Iterable[PlannedRun], out: Path) -> list[Unprepared]:
    """The runs whose folders below `out` are still to be written; nothing is.

    Raises ConfigurationError for one that holds work done with other settings or files than the plan's, CheckpointError
    for one that is damaged.
    """
    contents, unprepared = FileContents(), []
    for run in runs:
        now = contents.of(run.config)
        if _is_to_be_written(RunFolder(out / run.folder), run.config.to_mapping(), now):
            unprepared.append(Unprepared(run, now))
    return unprepared


def prepare_folders(runs: Iterable[PlannedRun], out: Path) -> None:
    """Make the folder of every run that has none yet.

    Raises what `check_folders` does, before anything is written, ConfigurationError if a folder cannot be written, and
    CheckpointError if it would have to be changed while another process writes in it.
    """
    for one in check_folders(runs, out):
        place, wanted = out / one.run.folder, one.run.config.to_mapping()
        folder = RunFolder(place)
        if not folder.config_path.exists():
            folder = RunFolder.create(place)
        with folder:  # the run's own process writes from here on
            if _are_files(wanted):
                wanted["fleet"] = str(folder.keep_fleet_file(Path(str(wanted["fleet"]))))
            else:
                folder.fleet_path.unlink(missing_ok=True)  # the run would take it for its own
            write_contents(folder, one.contents)
            folder.write_config({**wanted, "out": str(place.resolve())})


def _is_to_be_written(folder: RunFolder, wanted: Mapping[str, Scalar], now: Mapping[str, str]) -> bool:
    """Whether the folder is not as the plan has it; raises ConfigurationError if that cannot be mended."""
    if not folder.config_path.exists():
        return True
    before, recorded = Config.from_mapping(folder.read_config()).to_mapping(), read_contents(folder)
    changed = _changed(folder, before, wanted)
    if folder.summary_path.exists() or any(folder.checkpoint_folder.glob("*")):
        if changed:
            raise ConfigurationError(_refusal(folder, changed[0], before, wanted))
        for key in now:
            if recorded.get(key, now[key]) != now[key]:
                raise ConfigurationError(
                    f"{folder.path} holds a run with other files than {key} = {wanted[key]!r} has now: give them as "
                    "they were, choose another --out, or delete that folder"
                )
        return False
    return bool(changed) or any(recorded.get(key) != now[key] for key in now)


def _changed(folder: RunFolder, before: Mapping[str, Scalar], wanted: Mapping[str, Scalar]) -> list[str]:
    """The settings in which a run, begun with those `before`, is none of the plan's; of fleet files the content counts.

    What a file said when the run began is kept in the run's folder. Strides may have been left open.
    """
    same = {key for key in wanted if key in PLACES or before[key] == wanted[key]}
    same |= {key for key in ("strides", "stem-stride") if wanted[key] in (AUTO_STEM, AUTO_STRIDES)}
    if _are_files(before, wanted) and folder.fleet_path.exists():
        same -= {"fleet"}
        if folder.fleet_path.read_bytes() == Path(str(wanted["fleet"])).read_bytes():
            same |= {"fleet"}
    return [key for key in wanted if key not in same]


def _are_files(*settings: Mapping[str, Scalar]) -> bool:
    return all(is_fleet_file(str(one["fleet"])) for one in settings)


def _refusal(folder: RunFolder, key: str, before: Mapping[str, Scalar], wanted: Mapping[str, Scalar]) -> str:
    if key == "fleet" and _are_files(before, wanted):
        what = f"of other devices than {wanted[key]} describes: give the file as it was,"
    else:
        what = f"with {key} = {before[key]!r}, not {wanted[key]!r} as the experiment says:"
    return f"{folder.path} holds a run {what} choose another --out, or delete that folder"
