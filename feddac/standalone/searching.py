"""A search without federation, in a run folder: what `feddac search` and `feddac.search` do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from common.bounds import BOUND_KEYS, parse_count
from common.budget import Costs, DeviceBudget
from common.config import Config
from common.effects import require_effect
from common.errors import BudgetError, CheckpointError, ConfigurationError
from common.learning import pick_accelerator
from common.models.description import BaseNetwork
from common.progress import Progress
from common.search_space import SearchSpace
from common.settings import Scalar
from dac.files import save_member
from dac.plan import check_feasible, floor_costs
from dac.published import is_publishable, write_published
from dac.search import search
from dac.strides import with_strides
from feddac.resolve import with_absolute_paths
from feddac.standalone.budgets import FLAGS, LATENCY, Budgets, is_budget_name
from feddac.standalone.continuing import keep_settings, require_continuable
from feddac.standalone.material import Material, load_material
from feddac.standalone.settings import SEARCH, own
from server.budget_entries import BudgetEntry
from server.reference import base_network
from server.resumed_settings import with_saved_strides
from server.run_folder import RunFolder
from server.threads import threads_of
from simulation.remedies import enough, first_that_works, of_network

CHECKPOINT = "search.safetensors"


@dataclass(frozen=True)
class SearchJob:
    """A search that is ready to begin or to go on: `run` does it, and keeps all in `folder`."""

    folder: RunFolder
    budgets: Budgets
    config: Config
    base: BaseNetwork
    material: Material
    accelerator: torch.device

    def run(self, progress: Progress) -> None:
        """Search an architecture for every budget; ends with the same ones if it was cut short and resumed."""
        seed, names = self.config.run.seed, list(self.budgets)
        with self.folder as folder, threads_of(folder):
            keep_settings(folder, own(self.config.to_mapping(), SEARCH))
            family = search(
                self.base,
                list(self.budgets.values()),
                self.material.train,
                self.material.validation,
                self.config.search,
                seed=seed,
                accelerator=self.accelerator,
                progress=progress,
                checkpoint=folder.checkpoint_folder / CHECKPOINT,
                record=folder.epoch_recorder("search"),
            )
            for name, member in zip(names, family.members, strict=True):
                save_member(
                    folder.architecture_path(name),
                    member,
                    name=name,
                    parent=None if member.parent is None else names[member.parent],
                    seed=seed,
                    preparation=self.material.preparation,
                )
        found = {name: one.architecture for name, one in zip(names, family.members, strict=True)}
        if all(map(is_publishable, found.values())):
            write_published(self.folder.path / "net_cfg.json", found)


def prepare_search(
    given: Mapping[str, Any], budgets: Budgets | None, progress: Progress, resume: Path | None = None
) -> SearchJob:
    """The search of an architecture for every one of `budgets`, with its run folder.

    `given` are kebab-case settings of SEARCH. With `resume` it is the search of that folder, with its own budgets.
    Mistakes are raised before anything is written: ConfigurationError, also for no budget or a name that no file can
    have, DataError, BudgetError for a budget below the floor, CheckpointError for a folder that holds no search or
    settings with which its search cannot go on.
    """
    folder = None if resume is None else RunFolder.open(resume)
    asked = dict(budgets or {}) if folder is None else _read_budgets(folder)
    config = with_absolute_paths(Config.from_mapping(own(given, SEARCH)))  # a file may have a federation's as well
    if folder is None:  # what an earlier FedDAC began with may have no effect in this one
        _check_names(asked)
        require_effect(config)
    else:
        config = with_saved_strides(config, folder)
        settings = own(config.to_mapping(), SEARCH)
        require_continuable(folder, settings, SEARCH, folder.checkpoint_folder / CHECKPOINT)
    accelerator = pick_accelerator(config.run.accelerator)
    progress.start("data", 1)
    material = load_material(config.data, config.search.search_batch_size, config.run.seed)
    progress.finish("data", f"{material.data.name}: {len(material.data.train)} training images")
    try:
        config, base = _fitted(config, material, asked)
    except BudgetError as error:
        raise BudgetError(str(error), _remedy(config, material, asked)) from None
    return SearchJob(folder or _begin(config, asked), asked, config, base, material, accelerator)


def _fitted(config: Config, material: Material, budgets: Budgets) -> tuple[Config, BaseNetwork]:
    """`config` with strides in numbers, and its base network; raises BudgetError if it cannot serve every budget."""
    data, wanted, space = material.data, list(budgets.values()), SearchSpace.of(config.search)
    config = replace(config, model=with_strides(config.model, data.input_shape, data.classes, wanted, space))
    base = base_network(config.model, data)
    check_feasible(base, wanted, space)
    return config, base


def _remedy(config: Config, material: Material, budgets: Budgets) -> dict[str, Scalar]:
    """The settings, or else the bounds, with which the search would have something for every budget; {} if none do."""
    found = first_that_works(of_network(config), lambda one: _fitted(config.changed(one), material, budgets))
    if found:
        return found
    floor = floor_costs(base_network(config.model, material.data), SearchSpace.of(config.search))
    looser = {name: _with_room_for(floor, one) for name, one in budgets.items()}
    return first_that_works([_changed_flags(budgets, looser)], lambda _: _fitted(config, material, looser))


def _with_room_for(costs: Costs, budget: DeviceBudget) -> DeviceBudget:
    """`budget` with those of its bounds raised that `costs` break."""
    broken = budget.violated(costs)
    counts: dict[str, Any] = {
        resource: parse_count(enough(int(budget.amount(costs, resource))), resource)
        for resource in broken
        if resource != "latency"
    }
    latency = budget.latency
    if latency is not None and "latency" in broken:
        milliseconds = float(math.ceil(1.001 * budget.latency_ms(costs)))
        latency = replace(latency.loosened(milliseconds / latency.milliseconds), milliseconds=milliseconds)
    return replace(budget, **counts, latency=latency)


def _changed_flags(before: Budgets, after: Budgets) -> dict[str, Scalar]:
    """The flags by which the bounds `after` differ; {} where only some budgets have such a bound: no flag says that."""
    changed: dict[str, Scalar] = {}
    for flag in FLAGS:
        was, now = ([_written(one, flag) for one in budgets.values()] for budgets in (before, after))
        if now == was:
            continue
        if not all(now):
            return {}
        changed[f"max-{flag}"] = now[0] if len(set(now)) == 1 else ",".join(now)
    return changed


def _written(budget: DeviceBudget, flag: str) -> str:
    """A bound as its flag would have it; empty where there is none."""
    latency = budget.latency and budget.latency.milliseconds
    bound = latency if flag == LATENCY else getattr(budget, BOUND_KEYS[flag][0])
    return "" if bound is None else str(bound)


def _begin(config: Config, budgets: Budgets) -> RunFolder:
    folder = RunFolder.create(config.run.out)
    folder.write_budgets([BudgetEntry(name, budget) for name, budget in budgets.items()])
    folder.write_config(own(config.to_mapping(), SEARCH))
    return folder


def _check_names(budgets: Budgets) -> None:
    if not budgets:
        raise ConfigurationError("give at least one budget to search for")
    for name in budgets:
        if not is_budget_name(name):
            raise ConfigurationError(
                f"the name of a budget is made of up to 64 of a to z, 0 to 9 and -, not {name!r:.80}"
            )


def _read_budgets(folder: RunFolder) -> Budgets:
    if folder.kind != "search":
        raise CheckpointError(f"{folder.path} holds no search; resume it with the command that began it")
    budgets: Budgets = {}
    for entry in folder.read_budgets():
        if not is_budget_name(entry.name) or entry.name in budgets:
            raise CheckpointError(f"{folder.budgets_path} is damaged: no budget can be called {entry.name!r:.80}")
        budgets[entry.name] = entry.budget
    return budgets
