"""FedNAS (He et al. 2020, arXiv:2004.08546, algorithm 1): search for cells in a federation, then train what was found.

In the first stage every device trains the DARTS supernet and its architecture parameters, which are tensors like its
weights: the server sets all of them to their sample-weighted means. The cells that they stand for are written down
after every round. After `fednas-search-rounds` the network of these cells takes the supernet's place, with random
weights, and is trained and averaged as in FedAvg; so robust means, resuming and model files are those of every method.

The mean is one of equal supernets, so a device that cannot hold the run's is refused, and told how many channels it
could hold.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.errors import ConfigurationError
from common.learning import evaluate
from common.methods.fednas import CellOrder, CellTraining, FedNAS, FedNASSettings
from common.models.darts_space import HEAVIEST, chosen
from common.models.description import BaseNetwork
from common.seeds import derive_seed
from dac.files import Member
from server.cohorts import Cohort
from server.devices import Device
from server.methods.architecture_files import record_architecture
from server.methods.averaged import Averaged
from server.methods.cell_networks import (
    alphas_of,
    design_of,
    given_genotype,
    is_searching,
    needs,
    network_of,
    of_cells,
    require_held,
)
from server.methods.genotypes import write_genotype
from server.methods.reference_training import recalibrate_cohorts
from server.methods.refusals import keep_able
from server.run import Run
from server.steps import Step


class FedNASServer(Averaged):
    """One cohort, whose network says which stage it is in."""

    contract = FedNAS

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.settings = run.config.of(FedNASSettings)

    @classmethod
    def check(
        cls, config: Config, base: BaseNetwork, budgets: Mapping[str, DeviceBudget], *, begun: bool = False
    ) -> None:
        """Raise ConfigurationError for stages or rates that cannot be, and for networks and files that do not fit.

        Devices that cannot hold the supernet are named when they have reported.
        """
        super().check(config, base, budgets, begun=begun)
        settings, rounds = config.of(FedNASSettings), config.federation.rounds
        if settings.fednas_lowest_learning_rate > config.federation.learning_rate:
            raise ConfigurationError(
                f"fednas-lowest-learning-rate = {settings.fednas_lowest_learning_rate:g} is above learning-rate = "
                f"{config.federation.learning_rate:g}: lower it, for the rate falls to it"
            )
        searches = not settings.fednas_genotype
        if searches and rounds <= settings.fednas_search_rounds:
            raise ConfigurationError(
                f"of {rounds} rounds {settings.fednas_search_rounds} are for the search, which leaves none to train "
                "what it finds: raise --rounds or lower --fednas-search-rounds"
            )
        if searches and settings.fednas_warmup_rounds >= settings.fednas_search_rounds:
            raise ConfigurationError(
                f"of {settings.fednas_search_rounds} rounds of the search fednas-warmup-rounds = "
                f"{settings.fednas_warmup_rounds} leaves none that moves the architecture: lower it, or raise "
                "--fednas-search-rounds"
            )
        given = None if begun else given_genotype(settings)
        network_of(settings, base, given or HEAVIEST)

    def find_cohorts(self, devices: Sequence[Device]) -> list[Cohort]:
        """All devices that can hold the supernet, or the network of a given genotype; the others are refused."""
        base, given = self.run.reference.base, given_genotype(self.settings)
        able = keep_able(devices, lambda budget: require_held(budget, self.settings, base, given), self.run)
        network = network_of(self.settings, base, given)
        cohort = Cohort("cohort-0", network, np.empty(0, np.float32), 0.0, [one.name for one in able])
        self._begin(cohort, network, 0)
        return [cohort]

    def place(self, device: Device) -> Cohort | None:
        """The one cohort, if the device can hold its network, and while searching also the one that will come."""
        (cohort,) = self.cohorts
        base = self.run.reference.base
        costs = needs(self.settings, base, None) if is_searching(cohort) else cohort.network.costs
        return cohort if device.budget.admits(costs) else None

    def steps(self, number: int) -> Sequence[Step]:
        """Search; after the last round of it the found network comes, and is trained."""
        (cohort,) = self.cohorts
        if is_searching(cohort) and number > self.settings.fednas_search_rounds:
            genotype = chosen(alphas_of(cohort))
            self._begin(cohort, network_of(self.settings, self.run.reference.base, genotype), number)
            self.run.progress.note(f"round {number}: the search is over, and devices train what it found")
        return [of_cells(step) for step in super().steps(number)]

    def order(self, cohort: Cohort, device: Device, number: int) -> CellOrder:
        """How a device trains in either stage."""
        own = self.settings.to_mapping()
        told = {key: own[key] for key in CellTraining.keys()}  # noqa: SIM118
        if is_searching(cohort) and self.settings.fednas_search_epochs:
            told["epochs"] = self.settings.fednas_search_epochs
        if is_searching(cohort) and number <= self.settings.fednas_warmup_rounds:
            told |= {"fednas-training-coefficient": 0.0, "fednas-validation-coefficient": 0.0}
        return CellOrder.from_mapping({**super().order(cohort, device, number).to_mapping(), **told})

    def finish(self, number: int) -> None:
        """Average; while searching, write down the cells that the means stand for."""
        super().finish(number)
        (cohort,) = self.cohorts
        if is_searching(cohort):
            alphas = alphas_of(cohort)
            model = design_of(self.settings, chosen(alphas)).name
            write_genotype(self.run.folder.method_folder / f"genotype-{number:05d}.json", number, alphas, model)

    def notes(self, cohort: Cohort) -> Mapping[str, object]:
        """The genotype after a round of the search."""
        own = {"genotype": chosen(alphas_of(cohort)).code} if is_searching(cohort) else {}
        return {**super().notes(cohort), **own}

    def _begin(self, cohort: Cohort, network: Architecture, number: int) -> None:
        """Give the cohort a network with random weights, which only the run's seed decides, and record it."""
        run = self.run
        state = network.build(derive_seed(run.seed, "initial-weights")).state_dict()
        cohort.network, cohort.weights = network, network.layout.flatten(state)
        if self.frozen:
            recalibrate_cohorts([cohort], run)
        cohort.search_accuracy = evaluate(self.module(cohort), run.reference.validation, run.accelerator).accuracy
        record_architecture(run, cohort, Member(network, DeviceBudget(), state, cohort.search_accuracy), number=number)
