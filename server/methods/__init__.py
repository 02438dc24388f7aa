"""The server half of each method: which architectures there are, and which device holds which.

A method is one function from devices to cohorts, and a few answers to how those are trained. It is chosen here only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

from common.architecture import Architecture
from common.config import Config, MethodSettings
from common.progress import Progress
from server.cohorts import Cohort
from server.devices import Device
from server.methods import dac, fedavg, heterofl
from server.methods.start import pretraining_epochs
from server.reference import Reference
from server.run_folder import RunFolder

FindCohorts: TypeAlias = Callable[
    [Sequence[Device], Reference, Config, RunFolder, torch.device, Progress],
    list[Cohort],
]

METHODS: Mapping[str, FindCohorts] = {
    "dac": dac.find_cohorts,
    "fedavg": fedavg.find_cohorts,
    "heterofl": heterofl.find_cohorts,
}


def find_cohorts(
    devices: Sequence[Device],
    reference: Reference,
    config: Config,
    folder: RunFolder,
    accelerator: torch.device,
    progress: Progress,
) -> list[Cohort]:
    """The cohorts of the run's method, largest architecture first; devices in none of them were refused by name.

    Work that was cut short is resumed from the run folder. Raises BudgetError, saying what would be enough, if no
    device can take part.
    """
    return METHODS[config.method.method](devices, reference, config, folder, accelerator, progress)


def uses_overlap(config: Config) -> bool:
    """Whether cohorts learn from each other where their weights overlap; heterofl consists in that."""
    return config.method.aggregation != "cohort" or config.method.method == "heterofl"


def averages_updates(config: Config) -> bool:
    """Whether it is updates that cohorts average with each other, and not weights as in heterofl."""
    return config.method.aggregation == "overlap" and config.method.method != "heterofl"


def recalibrates(config: Config) -> bool:
    """Whether batch-norm statistics are measured anew before every test; heterofl implies it (static batch norm)."""
    return config.method.batch_norm in ("recalibrate", "frozen") or config.method.method == "heterofl"


def ignores_budgets(config: Config) -> bool:
    """Whether devices hold their architecture whatever their budget, as the oracle of fedavg assumes."""
    return config.method.method == "fedavg" and config.method.fedavg_model == "largest"


def activation_scale(architecture: Architecture, settings: MethodSettings) -> float:
    """What devices divide the outputs of convolutions by while they train; 1 for every method but heterofl.

    It is 1 with frozen batch norms too: their statistics are those of unscaled outputs, and divided ones would reach
    them too small.
    """
    scaled = settings.method == "heterofl" and settings.batch_norm != "frozen"
    return heterofl.rate_of(architecture) if scaled else 1.0


def epochs_on_reference(config: Config, folder: RunFolder) -> int:
    """Passes over the reference set that the most trained model had behind it before the first round."""
    several = len({event["cohort"] for event in folder.events("architecture")}) > 1
    joint = config.search.joint_epochs if several else 0
    if config.method.method != "dac":
        pretraining = pretraining_epochs(config)  # and with heterofl the fine-tuning of the slices
        return pretraining + joint if pretraining and config.method.method == "heterofl" else pretraining
    if config.method.architectures:
        return 0
    # with a search that forked, fewer: no one trajectory trained all of these epochs
    return len({event["epoch"] for event in folder.events("search")}) + config.search.fine_tune_epochs + joint
