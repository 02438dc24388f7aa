"""The rounds of a federation: train, aggregate, evaluate, checkpoint, until they are over or nothing improves."""

import time
from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from common.config import Config
from common.costs import costs_of
from common.errors import FederationError
from common.process import peak_rss_bytes
from common.progress import Progress
from server.assignment import best_fitting
from server.checkpoint import save_checkpoint
from server.cohorts import FederationState
from server.devices import Device, without_duplicates
from server.evaluation import evaluate_cohort, mean_over_devices, update_early_stopping
from server.exchange import exchange
from server.handshake import Greeter
from server.reference import Reference
from server.run_folder import RunFolder
from server.strategy import CohortStrategy

FRUITLESS_LIMIT = 3
"""So many rounds in a row without one admitted reply end the run: it would only look like success."""


class Rounds:
    """Round after round over `state`, which it updates in place and checkpoints after each."""

    def __init__(
        self,
        grid: Grid,
        greeter: Greeter,
        state: FederationState,
        devices: dict[str, Device],
        reference: Reference,
        config: Config,
        folder: RunFolder,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._grid, self._greeter, self._state, self._devices = grid, greeter, state, devices
        self._reference, self._config, self._folder = reference, config, folder
        self._device, self._progress = device, progress
        self._strategy = CohortStrategy(state, devices, config.federation, config.run.seed, folder.append, progress)

    def start(self) -> None:
        """Evaluate what the search left, as round 0, and checkpoint it, so that no resumed run searches again."""
        self._evaluate()
        self._checkpoint()

    def run(self) -> None:
        """Run the rounds that are left. Raises FederationError after three rounds without an admitted reply."""
        state, settings = self._state, self._config.federation
        self._progress.start("rounds", settings.rounds)
        self._progress.advance("rounds", state.round, f"{state.round} rounds are done")
        while state.round < settings.rounds and not state.stopped_early:
            start = time.perf_counter()
            self._admit_newcomers()
            self._round(state.round + 1)
            self._add_seconds(time.perf_counter() - start)
            self._checkpoint()
            accuracy = mean_over_devices(state, "accuracy")
            self._progress.advance("rounds", 1, f"round {state.round}: mean accuracy {accuracy:.1%}")
        why = " (validation accuracy stopped improving)" if state.stopped_early else ""
        self._progress.finish("rounds", f"{state.round} rounds{why}")

    def _round(self, number: int) -> None:
        state, settings, strategy = self._state, self._config.federation, self._strategy
        empty, nothing = ArrayRecord(), ConfigRecord()
        messages = strategy.configure_train(number, empty, nothing, self._grid)
        strategy.aggregate_train(number, exchange(self._grid, messages, settings.round_timeout))
        self._require_progress(number)
        state.round = number
        if number % settings.evaluate_every == 0 or number == settings.rounds:
            messages = strategy.configure_evaluate(number, empty, nothing, self._grid)
            strategy.aggregate_evaluate(number, exchange(self._grid, messages, settings.round_timeout))
            self._evaluate()

    def _require_progress(self, number: int) -> None:
        outcomes = list(self._strategy.outcomes.values())
        if any(outcome.status == "trained" for outcome in outcomes):
            self._state.fruitless_rounds = 0
            return
        self._state.fruitless_rounds += 1
        first = f"{outcomes[0].device}: {outcomes[0].reason}" if outcomes else "no device is online"
        self._progress.note(f"round {number}: no reply was admitted ({first})")
        if self._state.fruitless_rounds >= FRUITLESS_LIMIT:
            raise FederationError(f"no reply was admitted in {FRUITLESS_LIMIT} rounds in a row; first: {first}")

    def _evaluate(self) -> None:
        state = self._state
        for cohort in state.cohorts:
            cohort.evaluation = evaluation = evaluate_cohort(cohort, self._reference, state.round, self._device)
            self._folder.append(
                "evaluation",
                round=state.round,
                cohort=cohort.name,
                accuracy=evaluation.accuracy,
                loss=evaluation.loss,
                validation_accuracy=evaluation.validation_accuracy,
            )
        update_early_stopping(state, self._config.federation.patience)

    def _admit_newcomers(self) -> None:
        self._greeter.greet()
        newcomers, refused = without_duplicates(self._greeter.collect())
        online = self._greeter.online() if newcomers else set()
        for device in refused:
            self._progress.note(f"a second device called {device.name} is left out")
            self._greeter.forget(device.node_id)
        for device in newcomers:
            known = self._devices.get(device.name)
            if known is not None and known.node_id in online:
                # The old node may be dead without Flower having noticed yet, so this one is asked again later.
                self._greeter.forget(device.node_id)
            elif place(device, self._state, self._progress):
                self._devices[device.name] = device
                self._state.strikes.pop(device.name, None)  # whoever restarted it may have mended it
        if newcomers:
            sort_devices(self._state, self._devices.values())
            write_budgets(self._folder, self._state, self._devices.values())

    def _add_seconds(self, seconds: float) -> None:
        stages = self._state.stage_seconds
        stages["rounds"] = stages.get("rounds", 0.0) + seconds

    def _checkpoint(self) -> None:
        self._state.peak_rss_bytes = max(self._state.peak_rss_bytes, peak_rss_bytes())
        save_checkpoint(self._folder.checkpoint_folder, self._state, self._config)


def place(device: Device, state: FederationState, progress: Progress) -> bool:
    """Put a device that came late, or came back, into a cohort whose architecture its budget admits.

    It stays where it was if that still fits, else it joins the largest that does; False if none does.
    """
    current = state.cohort_of(device.name)
    if current is not None and device.budget.admits(costs_of(current.architecture)):
        return True
    if current is not None:
        current.devices.remove(device.name)
    cohort = best_fitting(device.budget, state.cohorts)
    if cohort is None:
        progress.note(f"{device.name} is left out: its budget {device.budget} admits none of the architectures")
        return False
    cohort.devices.append(device.name)
    progress.note(f"{device.name} joins {cohort.name}")
    return True


def sort_devices(state: FederationState, devices: Iterable[Device]) -> None:
    """Bring every cohort's devices into canonical order; those that are not there now come last, by name."""
    order = {device.name: device.order for device in devices}
    for cohort in state.cohorts:
        cohort.devices.sort(key=lambda name: (name not in order, order.get(name, (0, name))))


def write_budgets(folder: RunFolder, state: FederationState, devices: Iterable[Device]) -> None:
    """Write budgets.json: what each device can afford and which cohort it is in."""
    entries = []
    for device in sorted(devices, key=lambda device: device.order):
        cohort = state.cohort_of(device.name)
        entries.append(device.to_dict(cohort.name if cohort else ""))
    folder.write_budgets(entries)
