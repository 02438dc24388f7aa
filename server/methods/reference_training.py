"""What the server does to averaged models on its reference set: measure batch norms anew, and distil."""

from collections.abc import Sequence
from dataclasses import replace

from common.learning import CrossEntropy, Teacher, recalibrate, train_epoch
from common.optimizers import SGD
from common.seeds import derive_seed, seeded, torch_generator
from server.cohorts import Cohort
from server.run import Run

MOMENTUM = 0.9


def recalibrate_cohorts(cohorts: Sequence[Cohort], run: Run) -> None:
    """Replace every cohort's batch-norm statistics by those of its own weights on the reference set.

    Averages of statistics that devices with other classes, or cohorts with other channels, measured belong to none of
    the averaged models. HeteroFL (Diao et al. 2021) calls this static batch norm and asks the devices instead.
    """
    feed = replace(run.reference.train, batch_size=run.config.federation.test_batch_size)
    for cohort in cohorts:
        module = cohort.module(run.accelerator)
        recalibrate(module, feed, run.accelerator)
        cohort.keep(module)


def distil(cohorts: Sequence[Cohort], run: Run, number: int) -> None:
    """Train every cohort but the first, which is the largest, on that one's answers to the reference set.

    Labels are not used. The teacher's batch norms are measured anew first: with averaged statistics it would answer
    nonsense. Order and augmentation follow from the seed, the number of the round and the cohort.
    """
    settings, feed, accelerator = run.config.method, run.reference.train, run.accelerator
    largest = cohorts[0].module(accelerator)
    recalibrate(largest, feed, accelerator)
    loss = CrossEntropy(teacher=Teacher(largest.eval(), share=1.0))
    for cohort in cohorts[1:]:
        student = cohort.module(accelerator)
        optimizer = SGD(student.parameters(), lr=settings.distillation_learning_rate, momentum=MOMENTUM)
        names = ("distillation", number, cohort.name)
        generator = torch_generator(run.seed, *names)
        with seeded(derive_seed(run.seed, *names, "dropout"), accelerator):
            for _ in range(settings.distillation_epochs):
                train_epoch(student, feed, optimizer, generator, accelerator, loss)
        cohort.keep(student)
