"""FedGKT on the server (He, Annavaram and Avestimehr 2020, arXiv:2007.14513).

A round: every device trains its small network on its labels and on the server's last answers, and sends features,
logits and labels of all its images. The server trains its large network, which has no stem, on all of them, and then
answers: its logits for every image, by the image's id, go out with the next round.

Nothing is averaged, so every device is a cohort of its own, with the weights it sent last. What is scored is the pair,
the device's stem below the server's network, which is a whole bottleneck ResNet, or what a device can afford and takes
home, its small network with its own classifier (`fedgkt-score`).

Where this differs from the authors' program: docs/peers.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from common.arrays import Array
from common.budget import DeviceBudget
from common.config import Config
from common.errors import BudgetError
from common.layout import State, load_weights
from common.learning import evaluate, place
from common.messages import WEIGHTS, Result
from common.methods.contract import Contract
from common.methods.fedgkt import (
    EXTRACT,
    IDS,
    LOGITS,
    FedGKT,
    FedGKTSettings,
    Transfer,
    TransferOrder,
    epochs_in,
    row_specs,
)
from common.methods.training import PASSES, weights_spec
from common.models.bottleneck import STEM
from common.models.description import BaseNetwork
from common.optimizers import make_optimizer, optimizer_arrays, restore_optimizer
from common.seeds import derive_seed, torch_generator
from common.slicing import state_of
from dac.files import Member
from server.cohorts import Cohort
from server.devices import Device
from server.evaluation import is_due
from server.feature_bank import FeatureBank
from server.methods.architecture_files import record_architecture
from server.methods.halves import Halves
from server.methods.knowledge import answers_to, train_on
from server.methods.method import Model, Snapshot
from server.methods.pretraining import pretraining_epochs, starting_state
from server.methods.refusals import keep_able
from server.run import Run
from server.run_folder import DEVICE_MODEL
from server.sampling import epoch_range, training_order
from server.steps import Order, Step

START, SERVER, OPTIMIZER = "start", "server", "optimizer/"


class FedGKTServer:
    """A cohort per device, and one network that learns from all of them."""

    contract: ClassVar[type[Contract]] = FedGKT

    def __init__(self, run: Run) -> None:
        self.run = run
        self.cohorts: list[Cohort] = []
        self.settings = run.config.of(FedGKTSettings)
        self._halves = Halves.of(self.settings, run.reference.base)
        self._small, large = self._halves.small, self._halves.large
        self._layout = large.layout
        self._server = place(large.build(derive_seed(run.seed, "server-weights")), run.accelerator)
        self._optimizer = self._fresh_optimizer()
        self._start = self._small.layout.flatten(
            self._small.build(derive_seed(run.seed, "initial-weights")).state_dict()
        )
        self._bank = FeatureBank(run.folder.path / "features")
        self._answers: dict[str, tuple[Array, Array]] = {}  # ids and logits by cohort
        self._finished = 0
        self._owners: dict[str, str] = {}  # cohort by device, also of devices that are in none now

    @classmethod
    def check(
        cls, config: Config, base: BaseNetwork, budgets: Mapping[str, DeviceBudget], *, begun: bool = False
    ) -> None:
        """Raise ConfigurationError for an impossible schedule; devices are refused by name when they have reported."""
        epoch_range(config.federation.local_epochs)
        epochs_in(config.of(FedGKTSettings).fedgkt_server_epochs, 1)

    def prepare(self, devices: Sequence[Device]) -> None:
        """Give every device that can hold the small network a cohort; pretrain, if the settings ask for it.

        Pretraining is that of the whole network on the reference set: the devices start with its stem and first blocks,
        the server with the rest. Raises BudgetError if no device can hold the small network.
        """
        able = keep_able(devices, self._require_fit, self.run)
        if pretraining_epochs(self.run.config):
            self._begin_with(starting_state(self._halves.whole, self.run))
        for device in able:
            self._add(device.name).devices.append(device.name)
        first = evaluate(self.module(self.cohorts[0]), self.run.reference.validation, self.run.accelerator)
        for cohort in self.cohorts:
            cohort.search_accuracy = first.accuracy
            self._record(cohort, 0)

    def place(self, device: Device) -> Cohort | None:
        """The device's own cohort, a new one if it never had any; None if its budget is too small."""
        if not device.budget.admits(self._small.costs):
            return None
        own = self._owners.get(device.name)
        cohort = next((one for one in self.cohorts if one.name == own), None)
        if cohort is None:
            cohort = self._add(device.name)
            self._record(cohort, self._finished + 1)
        return cohort

    def steps(self, number: int) -> Sequence[Step]:
        """Every device trains and sends; answers are folded as they come, so that one at a time is in memory."""
        self._bank.clear()
        rows = row_specs(self._halves.large.input_shape, self._small.classes, self.settings)
        layout, steps = self._small.layout, []
        for cohort in self.cohorts:
            reply = {WEIGHTS: weights_spec(layout, cohort.weights, limits=self.contract.weight_limits), **rows}
            order = partial(self._order, cohort, number)
            steps.append(Step(EXTRACT, cohort, {WEIGHTS: cohort.weights}, reply, order, in_order=False))
        return steps

    def fold(self, step: Step, device: Device, result: Result) -> None:
        """Keep the device's weights, and what it said of its images until the end of the round."""
        step.cohort.weights = result.arrays[WEIGHTS]
        if len(result.arrays[IDS]):
            self._bank.put(step.cohort.name, {name: a for name, a in result.arrays.items() if name != WEIGHTS})

    def finish(self, number: int) -> None:
        """Train the server's network on everything that came, and answer."""
        rows = self._bank.rows([cohort.name for cohort in self.cohorts])
        if len(rows):
            settings, accelerator = self.settings, self.run.accelerator
            epochs = epochs_in(settings.fedgkt_server_epochs, number)
            generator = torch_generator(self.run.seed, "server", number)
            train_on(self._server, rows, self._optimizer, epochs, settings, generator, accelerator)
            for name in rows.names:
                ids = rows.batch(rows.of(name), [IDS])[IDS]
                logits = answers_to(self._server, rows, name, settings.fedgkt_server_batch_size, accelerator)
                self._answers[name] = ids, logits
        self._bank.clear()
        self._finished = number

    def module(self, cohort: Cohort) -> nn.Module:
        """What is scored: the pair, or the small network."""
        return self._pair(cohort) if self._scores_pair else cohort.module(self.run.accelerator)

    @property
    def _scores_pair(self) -> bool:
        return self.settings.fedgkt_score == "pair"

    def _pair(self, cohort: Cohort) -> nn.Module:
        """The device's stem and the server's network, one whole ResNet."""
        server = self._layout.flatten(self._server.state_dict())
        return self._halves.paired(cohort.weights, server, self.run.accelerator)

    def models(self, cohort: Cohort) -> Sequence[Model]:
        """The pair, and as NAME-device the small network that the device takes home."""
        small = cohort.module(self.run.accelerator)
        return [
            Model(cohort.name, self._halves.pair, self._pair(cohort)),
            Model(cohort.name + DEVICE_MODEL, self._small, small),
        ]

    def notes(self, cohort: Cohort) -> Mapping[str, Any]:
        """In rounds that are evaluated, the test accuracy of what is not scored: the small network, or the pair."""
        run = self.run
        if not is_due(self._finished, run.config.federation):
            return {}
        other = cohort.module(run.accelerator) if self._scores_pair else self._pair(cohort)
        score = evaluate(other, run.reference.test, run.accelerator)
        return {"device_network_accuracy" if self._scores_pair else "pair_accuracy": score.accuracy}

    def epochs_on_reference(self, rounds: int) -> int:
        """Those of the pretraining."""
        return pretraining_epochs(self.run.config)

    def snapshot(self) -> Snapshot:
        """The server's network and what its optimizer remembers, and its last answers."""
        arrays = {START: self._start, SERVER: self._layout.flatten(self._server.state_dict())}
        arrays |= {OPTIMIZER + name: values for name, values in optimizer_arrays(self._optimizer).items()}
        for cohort, (ids, logits) in self._answers.items():
            arrays |= {f"{IDS}/{cohort}": ids, f"{LOGITS}/{cohort}": logits}
        return Snapshot({"owners": self._owners, "finished": self._finished}, arrays)

    def restore(self, cohorts: list[Cohort], saved: Snapshot) -> None:
        """Go on with them; what a round that was cut short had gathered is asked for again."""
        self.cohorts, arrays = cohorts, saved.arrays
        self._owners = {str(device): str(cohort) for device, cohort in saved.facts["owners"].items()}
        self._start, self._finished = arrays[START], int(saved.facts.get("finished", 0))
        load_weights(self._server, self._layout.unflatten(arrays[SERVER]))
        own = {name.removeprefix(OPTIMIZER): a for name, a in arrays.items() if name.startswith(OPTIMIZER)}
        self._optimizer = self._fresh_optimizer()
        restore_optimizer(self._optimizer, own)
        answered = [cohort.name for cohort in cohorts if f"{IDS}/{cohort.name}" in arrays]
        self._answers = {name: (arrays[f"{IDS}/{name}"], arrays[f"{LOGITS}/{name}"]) for name in answered}

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        settings, shared = self.settings, self.run.config.federation
        return make_optimizer(
            settings.fedgkt_server_optimizer,
            self._server.parameters(),
            settings.fedgkt_server_learning_rate,
            shared.momentum,
            shared.weight_decay,
        )

    def _order(self, cohort: Cohort, number: int, device: Device) -> Order:
        own = {one.name: getattr(self.settings, one.name) for one in fields(Transfer)}
        order = TransferOrder(**asdict(training_order(self.run.config, number, device.name)), **own)
        last = self._answers.get(cohort.name)
        # Devices send all their images. One that has another number of them now has others, which these are not about.
        answers = {IDS: last[0], LOGITS: last[1]} if last and len(last[0]) == device.report.samples else {}
        # training, and one forward pass to extract
        return Order(order, (PASSES * order.epochs + 1) * self._small.costs.macs, answers)

    def _begin_with(self, whole: State) -> None:
        """Start from a trained whole network; small and large have what each shares with it, by name."""
        load_weights(self._server, {name: values for name, values in whole.items() if not name.startswith(STEM)})
        self._start = self._halves.begun_with(self._start, whole)

    def _require_fit(self, budget: DeviceBudget) -> None:
        if not budget.admits(self._small.costs):
            needs = f"a budget {budget} cannot hold fedgkt's small network, which needs {self._small.costs}"
            raise BudgetError(f"{needs}; raise it, or --max-latency-ms")

    def _record(self, cohort: Cohort, number: int) -> None:
        """Write down what a new cohort begins with, and in which round it first counts."""
        state = state_of(cohort.module(self.run.accelerator))
        member = Member(self._small, DeviceBudget(), state, cohort.search_accuracy)
        record_architecture(self.run, cohort, member, number=number)

    def _add(self, device: str) -> Cohort:
        """A cohort for a device that never had one; who it is, `owners` remembers, and not yet that it takes part."""
        accuracy = self.cohorts[0].search_accuracy if self.cohorts else 0.0
        cohort = Cohort(f"cohort-{len(self.cohorts)}", self._small, self._start, accuracy, [])
        self._owners[device] = cohort.name
        self.cohorts.append(cohort)
        return cohort
