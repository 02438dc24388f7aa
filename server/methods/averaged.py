"""What methods share whose devices train a model and whose cohorts' weights are means of their devices'.

A method built on this says which cohorts there are, and may change how devices train and how cohorts are combined.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.architecture import Architecture
from common.arrays import Arrays
from common.budget import DeviceBudget
from common.config import Config
from common.local_dp import largest_private_update
from common.messages import WEIGHTS, Result
from common.methods.contract import Contract
from common.methods.training import PASSES, TRAIN, TrainingOrder, weights_spec
from common.models.description import BaseNetwork
from server.aggregation import CohortMean, Total, plausible_samples
from server.assignment import best_fitting
from server.cohorts import Cohort
from server.devices import Device
from server.evaluation import is_due
from server.methods.guidance import is_trainable
from server.methods.method import Model, Snapshot
from server.methods.reference_training import distil, recalibrate_cohorts
from server.overlap import average_across
from server.robust import LEAST_DEVICES, RobustMean, is_robust
from server.run import Run
from server.sampling import epoch_range, training_order
from server.steps import Order, Step


class Averaged(ABC):
    """`contract` and `find_cohorts` are the method's own.

    `aggregation` says whether cohorts learn from each other: no (cohort), by the mean update of all devices (overlap),
    or by the mean weight of its holders (overlap-weights). `recalibrates` says whether batch-norm statistics are
    measured anew on the reference set before a test.
    """

    contract: ClassVar[type[Contract]]

    def __init__(self, run: Run) -> None:
        self.run = run
        self.cohorts: list[Cohort] = []
        self.aggregation = "cohort"
        self.frozen = run.config.method.batch_norm == "frozen"
        self.recalibrates = run.config.method.batch_norm in ("recalibrate", "frozen")
        self._means: dict[str, CohortMean | RobustMean] = {}
        self._registered: dict[str, int] = {}
        self._unprotected: set[str] = set()

    @classmethod
    def check(
        cls, config: Config, base: BaseNetwork, budgets: Mapping[str, DeviceBudget], *, begun: bool = False
    ) -> None:
        """Raise ConfigurationError for an impossible range of epochs.

        Devices that can hold no model are named when they have reported.
        """
        epoch_range(config.federation.local_epochs)

    @abstractmethod
    def find_cohorts(self, devices: Sequence[Device]) -> list[Cohort]:
        """The cohorts, largest network first; see `prepare` of `server.methods.method.Method`."""

    def order(self, cohort: Cohort, device: Device, number: int) -> TrainingOrder:
        """How a device trains in a round."""
        order = training_order(self.run.config, number, device.name)
        return replace(order, masked_loss=self.run.config.method.masked_loss, frozen_norms=self.frozen)

    def prepare(self, devices: Sequence[Device]) -> None:
        """Find the cohorts; frozen batch norms start with statistics of their own model."""
        self.cohorts = self.find_cohorts(devices)
        if self.frozen:
            recalibrate_cohorts(self.cohorts, self.run)

    def place(self, device: Device) -> Cohort | None:
        """The cohort of the largest network (in MACs) that the device's budget admits."""
        return best_fitting(device.budget, self.cohorts)

    def steps(self, number: int) -> Sequence[Step]:
        """Every cohort trains."""
        settings = self.run.config.federation
        self._registered = {}
        self._means = {
            cohort.name: RobustMean(cohort.weights, settings, _statistics(cohort))
            if is_robust(settings)
            else CohortMean()
            for cohort in self.cohorts
        }
        return [self._step(cohort, number) for cohort in self.cohorts]

    def fold(self, step: Step, device: Device, result: Result) -> None:
        """Add the device's weights to its cohort's mean."""
        samples = result.samples
        if self.aggregation != "cohort":
            samples = min(samples, plausible_samples(self._registered.values()))
        self._means[step.cohort.name].fold(result.arrays[WEIGHTS], samples)

    def finish(self, number: int) -> None:
        """Average, distil, and measure batch norms anew, as far as the settings ask for it.

        A cohort that nobody trained keeps its weights, or learns from the others.
        """
        totals = {name: total for name, mean in self._means.items() if (total := mean.result()) is not None}
        for cohort in self.cohorts:
            if cohort.name in totals:
                self._tell_of_protection(number, cohort)
        self._average(totals)
        if self.run.config.method.distillation_epochs:
            distil(self.cohorts, self.run, number)
        if self.recalibrates and (self.frozen or is_due(number, self.run.config.federation)):
            recalibrate_cohorts(self.cohorts, self.run)

    def module(self, cohort: Cohort) -> nn.Module:
        """The cohort's model."""
        return cohort.module(self.run.accelerator)

    def models(self, cohort: Cohort) -> Sequence[Model]:
        """The cohort's model and no other."""
        return [Model(cohort.name, cohort.network, self.module(cohort))]

    def notes(self, cohort: Cohort) -> Mapping[str, Any]:
        """Under robust settings, whether the mean of the cohort's devices in this round was `protected`."""
        mean = self._means.get(cohort.name)
        return {} if not isinstance(mean, RobustMean) or mean.protected is None else {"protected": mean.protected}

    def epochs_on_reference(self, rounds: int) -> int:
        """Those of the distillation after each round; a method adds what it trained before the first."""
        return rounds * self.run.config.method.distillation_epochs if len(self.cohorts) > 1 else 0

    def snapshot(self) -> Snapshot:
        """Nothing beside the cohorts."""
        return Snapshot()

    def restore(self, cohorts: list[Cohort], saved: Snapshot) -> None:
        """The cohorts are all there is."""
        self.cohorts = cohorts

    def _step(self, cohort: Cohort, number: int) -> Step:
        def order(device: Device) -> Order:
            self._registered[device.name] = device.report.samples
            settings = self.order(cohort, device, number)
            return Order(settings, PASSES * cohort.network.costs.macs * settings.epochs)

        arrays: Arrays = {WEIGHTS: cohort.weights}
        layout = cohort.network.layout
        noise = largest_private_update(self.run.config.federation, layout.size)
        spec = weights_spec(layout, cohort.weights, noise, self.contract.weight_limits)
        return Step(TRAIN, cohort, arrays, {WEIGHTS: spec}, order)

    def _average(self, totals: Mapping[str, Total]) -> None:
        if self.aggregation == "cohort":
            for cohort in self.cohorts:
                if cohort.name in totals:
                    cohort.weights = totals[cohort.name].mean()
            return
        norms = self.run.config.method.batch_norm != "local"
        updates = self.aggregation == "overlap"
        averaged = average_across(self.cohorts, totals, updates=updates, batch_norms=norms)
        for cohort, weights in zip(self.cohorts, averaged, strict=True):
            cohort.weights = weights

    def _tell_of_protection(self, number: int, cohort: Cohort) -> None:
        """Say when a cohort loses the protection that was asked for; again only after it had it back."""
        mean = self._means[cohort.name]
        if not isinstance(mean, RobustMean) or mean.protected:
            self._unprotected.discard(cohort.name)
        elif cohort.name not in self._unprotected:
            self._unprotected.add(cohort.name)
            self.run.progress.note(
                f"round {number}: {cohort.name} is averaged without protection: robust aggregation needs the models "
                f"of {LEAST_DEVICES} devices; a smaller max-cohorts puts more devices into each cohort"
            )


def _statistics(cohort: Cohort) -> NDArray[np.bool_] | None:
    """Which of the cohort's weights are not trained, such as running statistics; None where the network cannot say."""
    return ~is_trainable(cohort.network) if isinstance(cohort.network, Architecture) else None
