"""The networks that FedNAS sends to devices, what they cost, and what to tell a device that cannot hold them."""

from dataclasses import replace

from common.architecture import Architecture
from common.arrays import Vector
from common.budget import Costs, DeviceBudget, largest
from common.errors import BudgetError
from common.methods.fednas import ALPHAS, SEARCH, CellOrder, FedNASSettings, search_macs
from common.methods.training import PASSES
from common.models.darts import Design, auxiliary_macs
from common.models.darts_space import HEAVIEST, Genotype
from common.models.description import BaseNetwork
from dac.scaling import admitted
from server.cohorts import Cohort, architecture_of
from server.devices import Device
from server.methods.genotypes import read_genotype
from server.steps import Order, Step


def network_of(settings: FedNASSettings, base: BaseNetwork, genotype: Genotype | None) -> Architecture:
    """The network of a genotype, or the supernet, for the images and classes of `base`."""
    return Architecture.full(BaseNetwork(design_of(settings, genotype).name, base.input_shape, base.classes))


def design_of(settings: FedNASSettings, genotype: Genotype | None) -> Design:
    """The network's design; what was found has an auxiliary head where its loss counts."""
    auxiliary = genotype is not None and settings.fednas_auxiliary_coefficient > 0
    return Design(settings.fednas_channels, settings.fednas_cells, genotype, auxiliary)


def given_genotype(settings: FedNASSettings) -> Genotype | None:
    """The genotype that is to be trained without a search."""
    return read_genotype(settings.fednas_genotype) if settings.fednas_genotype else None


def is_searching(cohort: Cohort) -> bool:
    """Whether the cohort's network is a supernet."""
    return Design.of(architecture_of(cohort).base.model).genotype is None


def alphas_of(cohort: Cohort) -> Vector:
    """The supernet's architecture parameters, shape (2, edges, operations)."""
    return cohort.network.layout.tensor(cohort.weights, ALPHAS)


def of_cells(step: Step) -> Step:
    """The training step that every method has, with what it costs here; while searching, as a step of the search."""
    cohort, base = step.cohort, architecture_of(step.cohort).base
    searching = is_searching(cohort)

    def order(device: Device) -> Order:
        told = step.order(device)
        settings = CellOrder.from_mapping(told.settings.to_mapping())
        macs = told.macs_per_sample + PASSES * settings.epochs * auxiliary_macs(Design.of(base.model), base)
        return replace(told, macs_per_sample=search_macs(cohort.network.costs.macs, settings) if searching else macs)

    return replace(step, name=SEARCH if searching else step.name, order=order)


def needs(settings: FedNASSettings, base: BaseNetwork, genotype: Genotype | None) -> Costs:
    """The most that a device of the run needs of each resource; without a genotype that of the supernet.

    A found network needs less than the supernet, but for an auxiliary head.
    """
    networks = [network_of(settings, base, genotype)]
    if genotype is None and settings.fednas_auxiliary_coefficient > 0:
        networks.append(network_of(settings, base, HEAVIEST))
    return largest([one.costs for one in networks])


def require_held(budget: DeviceBudget, settings: FedNASSettings, base: BaseNetwork, genotype: Genotype | None) -> None:
    """Raise BudgetError, saying how many channels would fit, for a budget that cannot hold the run's network."""
    costs = needs(settings, base, genotype)
    if budget.admits(costs):
        return
    fitting = _most_channels(budget, settings, base, genotype)
    raise BudgetError(
        f"a budget {budget} cannot hold {'the supernet' if genotype is None else 'the network'} of "
        f"{settings.fednas_channels} channels and {settings.fednas_cells} cells, which needs {costs}; "
        + (f"with --fednas-channels {fitting} it could" if fitting else "with one channel it could not either")
    )


def _most_channels(budget: DeviceBudget, settings: FedNASSettings, base: BaseNetwork, genotype: Genotype | None) -> int:
    """The largest number of channels below the run's that the budget admits; 0 if there is none."""

    def costs_at(channels: int) -> Costs:
        fewer = FedNASSettings.from_mapping({**settings.to_mapping(), "fednas-channels": channels})
        return needs(fewer, base, genotype)

    return admitted(range(1, settings.fednas_channels), costs_at, budget)  # from 1 on, so how many is the most
