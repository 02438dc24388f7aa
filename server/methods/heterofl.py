"""HeteroFL (Diao et al. 2021, arXiv:2010.01264): static nested slices of one network, averaged where they overlap.

Every device gets the first channels of each layer, as large a share of them (its rate) as its budget admits. Whatever
`--aggregation` says, each weight is the mean over all devices that hold it. The scaler of section 3 divides the outputs
of convolutions by the rate in training (`client.methods.heterofl`). Static batch norm, no running statistics in
training and new ones before a test, is what `--batch-norm recalibrate` does on the reference set; heterofl implies it.
Its masked loss is `--masked-loss zero`. With `--batch-norm frozen` devices train with those statistics, and the
scaler is left out.

Two things differ from the paper so that the comparison is fair: rates follow from the budgets rather than from the list
1, 1/2, ..., 1/16, and the network is trained on the server's reference set before the first round, and each slice of it
fine-tuned, as the architectures of the search are.
"""

from collections.abc import Sequence

import torch

from common.architecture import Architecture
from common.config import Config
from common.progress import Progress
from dac.joint import share_weights
from server.assignment import assign, merge_budgets
from server.cohorts import Cohort
from server.devices import Device
from server.methods.record import record_architecture
from server.methods.slices import largest_slice, reducible, sliceable
from server.methods.start import pretraining_epochs, starting_member, starting_state
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
    """One cohort per slice; see `server.methods.find_cohorts`."""
    full = Architecture.full(reference.base)
    fitting = sliceable(devices, reference.base, folder, progress)
    merged = merge_budgets([one.budget for one in fitting], config.fleet.max_cohorts, full.costs)
    trained = full, starting_state(full, reference, config, folder, accelerator, progress)
    members = {
        budget: starting_member(largest_slice(full.base, budget), budget, trained, reference, config, accelerator)
        for budget in dict.fromkeys(merged)
    }
    if pretraining_epochs(config) > 0:
        feeds, seed = (reference.train, reference.validation), config.run.seed
        agreed = share_weights(
            list(members.values()), *feeds, config.search, seed=seed, accelerator=accelerator, progress=progress
        )
        members = dict(zip(members, agreed, strict=True))
    cohorts = assign(fitting, [members[budget] for budget in merged])
    for cohort in cohorts:
        member = next(one for one in members.values() if one.architecture == cohort.architecture)
        record_architecture(folder, cohort, member, config.run.seed)
    return cohorts


def rate_of(architecture: Architecture) -> float:
    """The share of channels a slice keeps: the mean of kept / size over the groups that are sliced.

    Rounding up and the floors make it differ a little from the rate that was asked for.
    """
    shares = [architecture.sizes[group.name] / group.size for group in reducible(architecture.base)]
    return sum(shares) / len(shares)
