"""AutoFLIP on the server (Interno et al. 2024, arXiv:2405.10271).

The first round explores: every chosen device trains its own copy of one frozen base and reports how far each weight
moved. From these answers comes the guidance, and from the guidance what is removed (`server.methods.guidance`). The
rounds after it train what is left, from the base's own weights, not from what explorers made of them: the published
program begins its rounds with a model that 20 devices have already trained.

With theta the weights, Delta = theta - sum(n_i w_i) / sum(n_i), and beta the server's momentum, a round does
v <- beta v + (1 - beta) Delta and theta <- theta - v (the published program's server; it makes a new optimizer for
every device, so that its v never lives longer than one; here v is kept, as its formula asks for). Statistics of batch
norms are plain means: a variance must not swing below zero. At the end the mask is applied again, whatever was done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from common.arrays import ArraySpec, Vector, norm_of
from common.budget import DeviceBudget
from common.config import Config
from common.errors import ConfigurationError
from common.messages import WEIGHTS, Result
from common.methods.autoflip import (
    DISPLACEMENT,
    EPOCHS,
    EXPLORE,
    MASK,
    SPARSE,
    VALUES,
    AutoFLIP,
    AutoFLIPSettings,
    ExplorationOrder,
)
from common.methods.contract import Contract
from common.methods.training import NORM_FACTOR, PASSES, weights_spec
from common.models.description import BaseNetwork
from common.seeds import numpy_generator
from common.slicing import slice_state
from common.sparse import Kept, packed, spread, unpacked
from dac.files import Member
from server.aggregation import CohortMean, Total
from server.cohorts import Cohort, architecture_of
from server.devices import Device
from server.methods import guidance
from server.methods.architecture_files import record_architecture
from server.methods.fedavg import FedAvgServer
from server.methods.method import Snapshot
from server.methods.reference_training import recalibrate_cohorts
from server.robust import RobustMean, is_robust
from server.run import Run
from server.steps import Order, Step


class AutoFLIPServer(FedAvgServer):
    """One cohort with one network, which `fedavg-model` names; devices that cannot hold it are refused by name.

    `_kept` says which weights are left, None before anything was removed; `_velocity` is v. Both have shape (size,).
    `_round` is the one that was last begun, 0 before the first.
    """

    contract: ClassVar[type[Contract]] = AutoFLIP

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.own = run.config.of(AutoFLIPSettings)
        self._kept: Kept | None = None
        self._velocity: Vector | None = None
        self._explored: list[int] = []
        self._round = 0

    @classmethod
    def check(
        cls, config: Config, base: BaseNetwork, budgets: Mapping[str, DeviceBudget], *, begun: bool = False
    ) -> None:
        """Raise ConfigurationError where the only round would be spent on exploration."""
        super().check(config, base, budgets, begun=begun)
        if config.federation.rounds == 1 and config.of(AutoFLIPSettings).autoflip_guidance == "exploration":
            raise ConfigurationError("the first round of autoflip explores: with rounds = 1 nothing would be trained")

    def prepare(self, devices: Sequence[Device]) -> None:
        """Find the cohort; without exploration, remove at once what chance says.

        Batch norms that the settings keep measured have statistics of what is left, as after any other removal.
        """
        super().prepare(devices)
        if self.own.autoflip_guidance == "random":
            (cohort,) = self.cohorts
            draw = numpy_generator(self.run.seed, "autoflip", "guidance")
            self._remove(cohort, draw.random(len(cohort.weights), np.float32))
            if self.recalibrates:
                recalibrate_cohorts(self.cohorts, self.run)

    def steps(self, number: int) -> Sequence[Step]:
        """Explore until explorers have answered; then train, with a mask if there is one."""
        (train,) = super().steps(number)
        cohort, self._explored, self._round = train.cohort, [], number
        if self._kept is None:
            return [self._exploration(cohort, number)]
        if self._kept.all():
            return [train]
        whole = weights_spec(architecture_of(cohort).layout, cohort.weights, limits=self.contract.weight_limits)
        low, high = (one if isinstance(one, float) else one[self._kept] for one in (whole.low, whole.high))
        values = cohort.weights[self._kept]
        reply = {VALUES: ArraySpec("<f4", values.shape, low, high, whole.largest_norm)}
        return [replace(train, name=SPARSE, arrays={VALUES: values, MASK: packed(self._kept)}, reply=reply)]

    def fold(self, step: Step, device: Device, result: Result) -> None:
        """Add an exploration, which counts alike for every device, or weights."""
        if step.name == EXPLORE:
            self._means[step.cohort.name].fold(result.arrays[DISPLACEMENT], 1)
            self._explored.append(int(result.arrays[EPOCHS][0]))
            return
        if step.name == SPARSE and self._kept is not None:
            result = replace(result, arrays={WEIGHTS: spread(result.arrays[VALUES], self._kept)})
        super().fold(step, device, result)

    def notes(self, cohort: Cohort) -> Mapping[str, Any]:
        """The share of the weights that is kept, and the mean number of epochs of this round's explorers."""
        kept = 1.0 if self._kept is None else float(self._kept.mean())
        epochs = {"exploration_epochs": sum(self._explored) / len(self._explored)} if self._explored else {}
        return {**super().notes(cohort), "kept_share": kept, **epochs}

    def snapshot(self) -> Snapshot:
        """The mask, one bit per weight, and v."""
        arrays = {} if self._kept is None else {MASK: packed(self._kept)}
        return Snapshot(arrays=arrays if self._velocity is None else {**arrays, "velocity": self._velocity})

    def restore(self, cohorts: list[Cohort], saved: Snapshot) -> None:
        """Take them up again."""
        super().restore(cohorts, saved)
        if MASK in saved.arrays:
            self._kept = unpacked(saved.arrays[MASK], len(cohorts[0].weights))
        self._velocity = saved.arrays.get("velocity")

    def _exploration(self, cohort: Cohort, number: int) -> Step:
        """Every chosen device explores from the same weights, and reports w^2 of what it moved."""
        size, settings = len(cohort.weights), self.run.config.federation
        self._means[cohort.name] = (
            RobustMean(np.zeros(size, np.float32), settings) if is_robust(settings) else (CohortMean())
        )
        most, macs = self.own.autoflip_exploration_epochs, PASSES * cohort.network.costs.macs
        own = {"epochs": most, "patience": self.own.autoflip_patience}
        farthest = ((NORM_FACTOR + 1) * max(1.0, norm_of(cohort.weights))) ** 2

        def order(device: Device) -> Order:
            settings = {**self.order(cohort, device, number).to_mapping(), **own}
            return Order(ExplorationOrder.from_mapping(settings), macs * most)

        def work(_: Order, result: Result) -> int:
            return macs * int(result.arrays[EPOCHS][0]) * result.samples

        reply = {
            DISPLACEMENT: ArraySpec("<f4", (size,), low=0.0, largest_norm=farthest),
            EPOCHS: ArraySpec("<i4", (1,), low=1, high=most),
        }
        share = self.own.autoflip_explorers
        return Step(EXPLORE, cohort, {WEIGHTS: cohort.weights}, reply, order, share=share, work=work)

    def _average(self, totals: Mapping[str, Total]) -> None:
        """The round's mean: of explorations, by which something is removed, or of weights, towards which v leads."""
        (cohort,) = self.cohorts
        if cohort.name not in totals:
            return
        if self._kept is None:
            displacement = totals[cohort.name].mean()
            how = self.own.autoflip_normalisation
            self._remove(cohort, guidance.normalised(architecture_of(cohort), displacement, how))
            return
        before = cohort.weights
        super()._average(totals)
        beta = self.own.autoflip_server_momentum
        if beta:
            old = np.zeros_like(before) if self._velocity is None else self._velocity
            self._velocity = (beta * old + (1 - beta) * (before - cohort.weights)).astype(np.float32)
            trainable = guidance.is_trainable(architecture_of(cohort))
            cohort.weights = np.where(trainable, before - self._velocity, cohort.weights)
        cohort.weights = np.where(self._kept, cohort.weights, np.float32(0))

    def _remove(self, cohort: Cohort, guided_by: Vector) -> None:
        """Cut the cohort's network, and decide its mask, by a guidance of shape (size,)."""
        whole, share, mode = architecture_of(cohort), self.own.autoflip_threshold, self.own.autoflip_mode
        removed = int(share * guidance.is_guided(whole).sum())
        network, weights = whole, cohort.weights
        if mode != "unstructured":
            part = share if mode == "structured" else share / 2
            network = guidance.channels_kept(whole, guided_by, part, self.run.config.search.channel_floor)
            state, scores = (
                slice_state(whole.layout.unflatten(one), whole, network) for one in (cohort.weights, guided_by)
            )
            weights, guided_by = network.layout.flatten(state), network.layout.flatten(scores)
            removed -= int(guidance.is_guided(whole).sum() - guidance.is_guided(network).sum())
        remove = 0 if mode == "structured" else removed
        self._kept = guidance.parameters_kept(network, guided_by, weights, remove)
        cohort.network, cohort.weights = network, np.where(self._kept, weights, np.float32(0))
        if network != whole:
            member = Member(network, DeviceBudget(), network.layout.unflatten(cohort.weights), cohort.search_accuracy)
            record_architecture(self.run, cohort, member, number=self._round)
        removed_channels = f", {network.costs.macs:,} of {whole.costs.macs:,} MACs" if network != whole else ""
        self.run.progress.note(f"autoflip keeps {self._kept.sum():,} of {len(guided_by):,} weights{removed_channels}")
