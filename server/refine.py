"""What the server does to the averaged models on its reference set: measure batch norms anew, and distil."""

from collections.abc import Sequence

import torch
from torch import nn

from common.config import MethodSettings
from common.layout import load_weights
from common.learning import Feed, Teacher, place, recalibrate, train_epoch
from common.seeds import derive_seed, torch_generator
from server.cohorts import Cohort

MOMENTUM = 0.9


def recalibrate_cohorts(cohorts: Sequence[Cohort], feed: Feed, accelerator: torch.device) -> None:
    """Replace every cohort's batch-norm statistics by those of its own weights on the images of `feed`.

    Averages of statistics that devices with other classes, or cohorts with other channels, measured belong to none of
    the averaged models. HeteroFL (Diao et al. 2021) calls this static batch norm and asks the devices instead.
    """
    for cohort in cohorts:
        module = module_of(cohort, accelerator)
        recalibrate(module, feed, accelerator)
        keep(cohort, module)


def distil(
    cohorts: Sequence[Cohort], feed: Feed, settings: MethodSettings, *, seed: int, round: int, accelerator: torch.device
) -> None:
    """Train every cohort but the first, which is the largest, on that one's answers to the images of `feed`.

    Labels are not used. The teacher's batch norms are measured anew first: with averaged statistics it would answer
    nonsense. Order and augmentation follow from the seed, the round and the cohort.
    """
    largest = module_of(cohorts[0], accelerator)
    recalibrate(largest, feed, accelerator)
    teacher = Teacher(largest.eval(), share=1.0)
    for cohort in cohorts[1:]:
        student = module_of(cohort, accelerator)
        optimizer = torch.optim.SGD(student.parameters(), lr=settings.distillation_learning_rate, momentum=MOMENTUM)
        names = ("distillation", round, cohort.name)
        generator = torch_generator(seed, *names)
        with torch.random.fork_rng(devices=[accelerator] if accelerator.type == "cuda" else []):
            torch.manual_seed(derive_seed(seed, *names, "dropout"))
            for _ in range(settings.distillation_epochs):
                train_epoch(student, feed, optimizer, generator, accelerator, teacher=teacher)
        keep(cohort, student)


def module_of(cohort: Cohort, accelerator: torch.device) -> nn.Module:
    """The cohort's model on `device`."""
    module = cohort.architecture.build(0)
    load_weights(module, cohort.architecture.layout.unflatten(cohort.weights))
    return place(module, accelerator)


def keep(cohort: Cohort, module: nn.Module) -> None:
    """Make the module's weights those of the cohort."""
    cohort.weights = cohort.architecture.layout.flatten(module.state_dict())
