"""The search stage: budgets in, cohorts out."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.costs import costs_of
from common.errors import BudgetError
from common.progress import Progress
from common.seeds import derive_seed
from common.weights import Layout
from dac.files import Member, save_member
from dac.plan import check_feasible
from dac.search import search
from server.assignment import assign, merge_budgets
from server.cohorts import Cohort
from server.devices import Device
from server.reference import Reference
from server.run_folder import RunFolder


def affordable(devices: Sequence[Device], reference: Reference, refuse: Callable[[Device, str], None]) -> list[Device]:
    """The devices whose budget some architecture can meet; `refuse` is told of the others and why.

    Raises BudgetError, naming the smallest architecture's costs, if no device can take part.
    """
    fitting: list[Device] = []
    first: BudgetError | None = None
    for device in devices:
        try:
            check_feasible(reference.base, [device.budget])
            fitting.append(device)
        except BudgetError as error:
            first = first or error
            refuse(device, str(error))
    if first is not None and not fitting:
        raise first
    return fitting


def find_cohorts(
    devices: Sequence[Device],
    reference: Reference,
    config: Config,
    folder: RunFolder,
    device: torch.device,
    progress: Progress,
) -> list[Cohort]:
    """Search an architecture for every device, write the architecture files, and form the cohorts.

    A search that was cut short is resumed. With initial-weights = random the cohorts start from scratch.
    """
    full = costs_of(Architecture.full(reference.base))
    merged = merge_budgets([one.budget for one in devices], config.fleet.max_cohorts, full)
    unique = list(dict.fromkeys(merged))
    members = _search(unique, reference, config, folder, device, progress)
    by_budget = dict(zip(unique, members, strict=True))
    chosen = [by_budget[budget] for budget in merged]
    cohorts = assign(devices, chosen)
    cohort_of = {cohort.architecture: cohort.name for cohort in cohorts}
    for cohort in cohorts:
        candidates = [member for member in chosen if member.architecture == cohort.architecture]
        best = max(candidates, key=lambda member: member.validation_accuracy)
        parent = None if best.parent is None else cohort_of.get(members[best.parent].architecture)
        path = folder.architecture_path(cohort.name)
        save_member(path, best, name=cohort.name, parent=parent, seed=config.run.seed)
        if config.federation.initial_weights == "random":
            module = cohort.architecture.build(derive_seed(config.run.seed, "initial-weights", cohort.name))
            cohort.weights = Layout.of(cohort.architecture).flatten(module.state_dict())
        _record_architecture(folder, cohort)
    return cohorts


def _search(
    budgets: Sequence[DeviceBudget],
    reference: Reference,
    config: Config,
    folder: RunFolder,
    device: torch.device,
    progress: Progress,
) -> tuple[Member, ...]:
    """One member per budget; the only place where the server calls the search."""
    recorded = max((event["epoch"] for event in folder.events("search")), default=0)

    def record(fields: dict[str, Any]) -> None:
        if fields["epoch"] > recorded:  # a resumed search repeats the epoch that it was stopped in
            folder.append("search", **fields)

    family = search(
        reference.base,
        budgets,
        reference.train,
        reference.validation,
        config.search,
        seed=config.run.seed,
        device=device,
        progress=progress,
        checkpoint=folder.checkpoint_folder / "search.safetensors",
        record=record,
    )
    return family.members


def _record_architecture(folder: RunFolder, cohort: Cohort) -> None:
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
