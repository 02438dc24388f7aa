"""HeteroFL (Diao et al. 2021, arXiv:2010.01264): static nested slices of one network, averaged where they overlap.

Every device gets the first channels of each layer, as large a share of them (its rate) as its budget admits.
Each weight is the mean over all devices that hold it. The scaler of section 3 divides the outputs
of convolutions by the rate in training (`client.methods.heterofl`). Static batch norm, no running statistics in
training and new ones before a test, is what `--batch-norm recalibrate` does on the reference set; heterofl implies it.
Its masked loss is `--masked-loss zero`. With `--batch-norm frozen` devices train with those statistics, and the
scaler is left out.

Two things differ from the paper so that the comparison is fair: rates follow from the budgets rather than from the list
1, 1/2, ..., 1/16, and the network is trained on the server's reference set before the first round, and each slice of it
fine-tuned with the whole one as its teacher, as the architectures of the search are.
"""

from collections.abc import Sequence

from common.architecture import Architecture
from common.methods.heterofl import HeteroFL, ScaledOrder
from dac.joint import share_weights
from server.assignment import assign, budgets_to_serve
from server.cohorts import Cohort, architecture_of
from server.devices import Device
from server.methods.architecture_files import record_architecture
from server.methods.averaged import Averaged
from server.methods.pretraining import pretraining_epochs, starting_member, starting_state
from server.methods.slices import largest_slice, reducible, sliceable, smallest_costs
from server.run import Run


class HeteroFLServer(Averaged):
    """A cohort per slice; each weight is the mean over all devices that hold it."""

    contract = HeteroFL

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.aggregation = "overlap-weights"
        self.recalibrates = True

    def find_cohorts(self, devices: Sequence[Device]) -> list[Cohort]:
        """The slices of one network that the budgets admit, trained on the reference set."""
        run, full = self.run, Architecture.full(self.run.reference.base)
        fitting = sliceable(devices, run)
        merged = budgets_to_serve(fitting, smallest_costs(full.base), run)
        trained = full, starting_state(full, run)
        members = {
            budget: starting_member(largest_slice(full.base, budget), budget, trained, run)
            for budget in dict.fromkeys(merged)
        }
        if pretraining_epochs(run.config) > 0:
            agreed = share_weights(
                list(members.values()),
                run.reference.train,
                run.reference.validation,
                run.config.search,
                seed=run.seed,
                accelerator=run.accelerator,
                progress=run.progress,
            )
            members = dict(zip(members, agreed, strict=True))
        cohorts = assign(fitting, [members[budget] for budget in merged])
        for cohort in cohorts:
            member = next(one for one in members.values() if one.architecture == cohort.network)
            record_architecture(run, cohort, member)
        return cohorts

    def order(self, cohort: Cohort, device: Device, number: int) -> ScaledOrder:
        """The order with the scaler of section 3.

        It is 1 with frozen batch norms: their statistics are those of unscaled outputs, and divided ones would reach
        them too small.
        """
        scale = 1.0 if self.frozen else rate_of(architecture_of(cohort))
        order = super().order(cohort, device, number).to_mapping()
        return ScaledOrder.from_mapping({**order, "activation-scale": scale})

    def epochs_on_reference(self, rounds: int) -> int:
        """Those of the pretraining, of the slices' fine-tuning and joint training, and of the distillation."""
        search, before = self.run.config.search, pretraining_epochs(self.run.config)
        several = len(self.cohorts) > 1
        if before:
            whole = Architecture.full(self.run.reference.base)
            before += search.fine_tune_epochs * any(cohort.network != whole for cohort in self.cohorts)
            before += search.joint_epochs * several
        return before + super().epochs_on_reference(rounds)


def rate_of(architecture: Architecture) -> float:
    """The share of channels a slice keeps: the mean of kept / size over the groups that are sliced.

    Rounding up and the floors make it differ a little from the rate that was asked for.
    """
    shares = [architecture.sizes[group.name] / group.size for group in reducible(architecture.base)]
    return sum(shares) / len(shares)
