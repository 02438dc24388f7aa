"""DAC: an architecture per budget, from the search or from files, and a cohort per architecture."""

from collections.abc import Sequence
from pathlib import Path

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.progress import Progress
from dac.files import Member
from dac.plan import check_feasible
from dac.search import search
from dac.space import SearchSpace
from server.assignment import assign, merge_budgets
from server.cohorts import Cohort
from server.devices import Device
from server.methods.given import choose_members, read_members
from server.methods.record import keep_able, record_architecture
from server.methods.start import random_state
from server.reference import Reference
from server.run_folder import RunFolder


def find_cohorts(
    devices: Sequence[Device],
    reference: Reference,
    config: Config,
    folder: RunFolder,
    accelerator: torch.device,
    progress: Progress,
) -> list[Cohort]:
    """One cohort per architecture; see `server.methods.find_cohorts`.

    With `architectures` set nothing is searched. With initial-weights = random the cohorts start from slices of one
    random network, whatever weights the search or the files have.
    """
    if config.method.architectures:
        one_base = config.method.aggregation != "cohort"
        members = read_members(Path(config.method.architectures), reference.base, one_base)
        devices, chosen = choose_members(devices, members, folder, progress)
    else:
        devices = affordable(devices, reference, SearchSpace.of(config.search), folder, progress)
        full = Architecture.full(reference.base).costs
        merged = merge_budgets([one.budget for one in devices], config.fleet.max_cohorts, full)
        unique = list(dict.fromkeys(merged))
        members = _search(unique, reference, config, folder, accelerator, progress)
        by_budget = dict(zip(unique, members, strict=True))
        chosen = [by_budget[budget] for budget in merged]
    cohorts = assign(devices, chosen)
    cohort_of = {cohort.architecture: cohort.name for cohort in cohorts}
    for cohort in cohorts:
        candidates = [member for member in chosen if member.architecture == cohort.architecture]
        best = max(candidates, key=lambda member: member.validation_accuracy)
        parent = None if best.parent is None else cohort_of.get(members[best.parent].architecture)
        record_architecture(folder, cohort, best, config.run.seed, parent)
        if config.federation.initial_weights == "random":
            state = random_state(cohort.architecture, config.run.seed)
            cohort.weights = cohort.architecture.layout.flatten(state)
    return cohorts


def affordable(
    devices: Sequence[Device], reference: Reference, space: SearchSpace, folder: RunFolder, progress: Progress
) -> list[Device]:
    """The devices whose budget some architecture of the search can meet; the others are refused.

    Raises BudgetError, naming the smallest architecture's costs, if no device can take part.
    """
    return keep_able(devices, lambda budget: check_feasible(reference.base, [budget], space), folder, progress)


def _search(
    budgets: Sequence[DeviceBudget],
    reference: Reference,
    config: Config,
    folder: RunFolder,
    accelerator: torch.device,
    progress: Progress,
) -> list[Member]:
    """One member per budget; the only place where the server calls the search."""
    family = search(
        reference.base,
        budgets,
        reference.train,
        reference.validation,
        config.search,
        seed=config.run.seed,
        accelerator=accelerator,
        progress=progress,
        checkpoint=folder.checkpoint_folder / "search.safetensors",
        record=folder.epoch_recorder("search"),
    )
    return list(family.members)
