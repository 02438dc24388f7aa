"""DAC: an architecture per budget, from the search or from files, and a cohort per architecture."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.budget import DeviceBudget
from common.config import Config
from common.errors import BudgetError
from common.learning import evaluate, place
from common.methods.dac import DAC, DACSettings
from common.models.description import BaseNetwork
from common.search_space import SearchSpace
from dac.files import Member
from dac.plan import check_feasible, floor_costs
from dac.search import search
from server.assignment import assign, budgets_to_serve
from server.cohorts import Cohort
from server.devices import Device
from server.methods.architecture_files import choose_members, read_members, record_architecture
from server.methods.averaged import Averaged
from server.methods.pretraining import random_state
from server.methods.refusals import keep_able
from server.run import Run


class DACServer(Averaged):
    """Averaged within each cohort (the paper), or across them where channels overlap (`--aggregation overlap`)."""

    contract = DAC

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.aggregation = run.config.of(DACSettings).aggregation

    @classmethod
    def check(
        cls, config: Config, base: BaseNetwork, budgets: Mapping[str, DeviceBudget], *, begun: bool = False
    ) -> None:
        """Raise BudgetError for a device that no architecture of the search fits, and for files that do not fit."""
        super().check(config, base, budgets, begun=begun)
        settings = config.of(DACSettings)
        if settings.architectures:
            if not begun:
                read_members(Path(settings.architectures), base, settings.aggregation != "cohort")
            return
        for device, budget in budgets.items():
            try:
                check_feasible(base, [budget], SearchSpace.of(config.search))
            except BudgetError as error:
                raise BudgetError(f"{device}: {error}") from None

    def find_cohorts(self, devices: Sequence[Device]) -> list[Cohort]:
        """One cohort per architecture.

        With `architectures` set nothing is searched. With initial-weights = random the cohorts start from slices of one
        random network, whatever weights the search or the files have.
        """
        run, settings = self.run, self.run.config.of(DACSettings)
        if settings.architectures:
            found = read_members(Path(settings.architectures), run.reference.base, self.aggregation != "cohort")
            members = [self._as_it_begins(member) for member in found]
            devices, chosen = choose_members(devices, members, run)
        else:
            base = run.reference.base
            space = SearchSpace.of(run.config.search)
            devices = keep_able(devices, lambda budget: check_feasible(base, [budget], space), run)
            merged = budgets_to_serve(devices, floor_costs(base, space), run)
            unique = list(dict.fromkeys(merged))
            members = [self._as_it_begins(member) for member in self._search(unique)]
            by_budget = dict(zip(unique, members, strict=True))
            chosen = [by_budget[budget] for budget in merged]
        cohorts = assign(devices, chosen)
        self._record(cohorts, members, chosen)
        return cohorts

    def epochs_on_reference(self, rounds: int) -> int:
        """Those of the search, unless architectures were given, and of the distillation after each round.

        With a search that forked, fewer: no one trajectory trained all of these epochs.
        """
        after = super().epochs_on_reference(rounds)
        if self.run.config.of(DACSettings).architectures:
            return after
        search = self.run.config.search
        joint = search.joint_epochs if len(self.cohorts) > 1 else 0
        return (
            len({event["epoch"] for event in self.run.folder.events("search")})
            + search.fine_tune_epochs
            + joint
            + after
        )

    def _search(self, budgets: Sequence[DeviceBudget]) -> list[Member]:
        """One member per budget; the only place where the server calls the search."""
        run = self.run
        family = search(
            run.reference.base,
            budgets,
            run.reference.train,
            run.reference.validation,
            run.config.search,
            seed=run.seed,
            accelerator=run.accelerator,
            progress=run.progress,
            checkpoint=run.folder.checkpoint_folder / "search.safetensors",
            record=run.folder.epoch_recorder("search"),
        )
        return list(family.members)

    def _as_it_begins(self, member: Member) -> Member:
        """What was found, with the weights that the first round has, and their accuracy."""
        run = self.run
        if run.config.federation.initial_weights == "inherited":
            return member
        state = random_state(member.architecture, run.seed, run.config.search.recipe)
        module = place(member.architecture.build_from(state), run.accelerator)
        accuracy = evaluate(module, run.reference.validation, run.accelerator).accuracy
        return replace(member, state=state, validation_accuracy=accuracy)

    def _record(self, cohorts: Sequence[Cohort], members: Sequence[Member], chosen: Sequence[Member]) -> None:
        cohort_of = {cohort.network: cohort.name for cohort in cohorts}
        for cohort, best in zip(cohorts, _members_of(cohorts, chosen), strict=True):
            parent = None if best.parent is None else cohort_of.get(members[best.parent].architecture)
            record_architecture(self.run, cohort, best, parent)


def _members_of(cohorts: Sequence[Cohort], chosen: Sequence[Member]) -> list[Member]:
    """For each cohort the most accurate of the members that have its architecture."""
    return [
        max(
            (member for member in chosen if member.architecture == cohort.network),
            key=lambda member: member.validation_accuracy,
        )
        for cohort in cohorts
    ]
