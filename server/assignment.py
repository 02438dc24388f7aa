"""From budgets to cohorts: which budgets are searched for, and which devices share an architecture."""

from collections.abc import Sequence

from common.architecture import Architecture
from common.budget import Costs, DeviceBudget
from common.errors import BudgetError
from dac.files import Member
from dac.plan import clipped
from server.cohorts import Cohort
from server.devices import Device
from server.merging import merge_nearest
from server.run import Run


def merge_budgets(budgets: Sequence[DeviceBudget], max_cohorts: int, full: Costs, floor: Costs) -> list[DeviceBudget]:
    """For each budget the one that is searched for in its place: itself, or the meet of a group of near ones.

    Bounds above what the base network costs (`full`) are first lowered to it, for they cannot bind. Then the two groups
    that lose least by taking the meet of their budgets are merged, until at most `max_cohorts` are left; 0 sets no
    limit. A loss is the sum over devices and resources of log(bound before / bound after). Groups that would not admit
    the smallest network together (`floor`), which each of the budgets admits, stay apart: then more are left.
    """
    groups: dict[DeviceBudget, list[int]] = {}
    for position, budget in enumerate(budgets):
        groups.setdefault(clipped(budget, full), []).append(position)
    if max_cohorts:
        groups = merge_nearest(groups, max_cohorts, full, floor)
    merged = {position: budget for budget, positions in groups.items() for position in positions}
    return [merged[position] for position in range(len(budgets))]


def budgets_to_serve(devices: Sequence[Device], floor: Costs, run: Run) -> list[DeviceBudget]:
    """For each device the budget that its architecture is made for (`merge_budgets`), as the run's max-cohorts says.

    Tells where more are left than that, because the devices' budgets together admit no network.
    """
    limit, full = run.config.fleet.max_cohorts, Architecture.full(run.reference.base).costs
    merged = merge_budgets([one.budget for one in devices], limit, full, floor)
    left = len(set(merged))
    if 0 < limit < left:
        run.progress.note(
            f"{left} budgets are left to serve, though max-cohorts is {limit}: no network fits any two of them together"
        )
    return merged


def assign(devices: Sequence[Device], members: Sequence[Member]) -> list[Cohort]:
    """The cohorts of `devices`, each with the member of the same position; largest architecture (in MACs) first.

    Devices of equal architectures form one cohort even if their budgets differ; of several sets of weights for it, the
    more accurate on the validation split is taken. Raises BudgetError if a device could not hold its architecture.
    """
    found: dict[str, tuple[Member, list[str]]] = {}
    for device, member in zip(devices, members, strict=True):
        if not device.budget.admits(member.architecture.costs):
            raise BudgetError(f"the architecture found for {device.name} does not fit its budget {device.budget}")
        best, names = found.setdefault(member.architecture.to_json(), (member, []))
        names.append(device.name)
        if member.validation_accuracy > best.validation_accuracy:
            found[member.architecture.to_json()] = (member, names)

    def size(key: str) -> tuple[int, int, str]:
        costs = found[key][0].architecture.costs
        return -costs.macs, -costs.params, key

    cohorts = []
    for number, key in enumerate(sorted(found, key=size)):
        member, names = found[key]
        weights = member.architecture.layout.flatten(member.state)
        cohorts.append(Cohort(f"cohort-{number}", member.architecture, weights, member.validation_accuracy, names))
    return cohorts


def best_fitting(budget: DeviceBudget, cohorts: Sequence[Cohort]) -> Cohort | None:
    """The cohort of the largest network (in MACs) that the budget admits, if there is one."""
    fitting = [cohort for cohort in cohorts if budget.admits(cohort.network.costs)]
    return max(fitting, key=lambda cohort: cohort.network.costs.macs, default=None)
