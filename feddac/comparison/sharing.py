"""Runs that would do the same search do it once: its finished checkpoint is copied from run to run.

A search depends on the server's images, the base network, the recipe, the devices' budgets and the seed; not on how the
devices share their images, nor on anything that happens after it.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from common.atomic import replacing, write_atomically
from common.config import Config
from common.fleet import is_fleet_file, virtual_fleet
from common.methods import contract_of
from common.methods.contract import SEARCHED
from common.methods.dac import DACSettings
from server.run_folder import RunFolder

SEARCH = "search.safetensors"
FIRST_CHECKPOINT = "latest"
"""Written when the search is over and the rounds begin."""


def search_key(config: Config) -> str:
    """Equal for runs whose search is the same; empty for a run that does not search."""
    contract = contract_of(config.method.method)
    if not contract.reads >= SEARCHED or config.of(DACSettings).architectures:
        return ""
    budgets = [device.budget for device in virtual_fleet(config.fleet, config.federation.local_training)]
    if not config.fleet.max_cohorts:  # Merging weighs a budget by its devices; otherwise their number is irrelevant.
        budgets = list(dict.fromkeys(budgets))
    data = dataclasses.replace(config.data, partition="iid", data_folder="")
    file = config.fleet.fleet if is_fleet_file(config.fleet.fleet) else ""  # Its names decide the order of budgets.
    parts = (data, config.model, config.search, budgets, file, config.fleet.max_cohorts)
    return repr((*parts, config.run.seed, config.run.accelerator))


def has_searched(folder: RunFolder) -> bool:
    """Whether the search of this run is over and can be copied."""
    place = folder.checkpoint_folder
    return (place / FIRST_CHECKPOINT).exists() and (place / SEARCH).exists()


class Searches:
    """The runs of a comparison or a tuning by their searches, so that none is done twice."""

    def __init__(self) -> None:
        self._keys: dict[Path, str] = {}
        self._folders: dict[str, list[RunFolder]] = {}

    def add(self, config: Config, folder: RunFolder) -> None:
        """A run that has done its search, or will."""
        if key := search_key(config):
            self._keys[folder.path] = key
            self._folders.setdefault(key, []).append(folder)

    def is_awaited(self, folder: RunFolder, active: Iterable[RunFolder]) -> bool:
        """Whether one of the `active` runs is at the search that the run in `folder` needs."""
        key = self._keys.get(folder.path)
        if key is None or has_searched(folder):
            return False
        return any(self._keys.get(other.path) == key and not has_searched(other) for other in active)

    def take_over(self, folder: RunFolder) -> None:
        """Give the run, which has not begun its rounds, the search that it needs, if another run has done it."""
        key = self._keys.get(folder.path)
        if key is None or has_searched(folder):
            return
        source = next((one for one in self._folders[key] if has_searched(one)), None)
        if source is not None:
            copy_search(source, folder)


def copy_search(source: RunFolder, target: RunFolder) -> None:
    """Give `target`, which has not begun its rounds, the finished search of `source` and its record."""
    with replacing(target.checkpoint_folder / SEARCH) as temporary:
        shutil.copyfile(source.checkpoint_folder / SEARCH, temporary)
    kept = [event for event in target.events() if event["event"] != "search"]
    lines = [json.dumps(event, ensure_ascii=False) for event in [*kept, *source.events("search")]]
    write_atomically(target.metrics_path, "".join(f"{line}\n" for line in lines).encode())
