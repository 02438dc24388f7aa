"""The rounds of a federation: train, aggregate, evaluate, checkpoint, until they are over or nothing improves."""

import time
from dataclasses import replace

import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from common.config import Config
from common.errors import FederationError
from common.process import peak_rss_bytes
from common.progress import Progress
from server.checkpoint import save_checkpoint
from server.cohorts import FederationState
from server.devices import Device
from server.evaluation import evaluate_cohort, mean_over_devices, update_early_stopping
from server.exchange import exchange
from server.handshake import Greeter
from server.membership import take_reports
from server.methods import recalibrates
from server.reference import Reference
from server.refine import distil, recalibrate_cohorts
from server.report.live import LiveReport
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
        accelerator: torch.device,
        progress: Progress,
    ) -> None:
        self._grid, self._greeter, self._state, self._devices = grid, greeter, state, devices
        self._reference, self._config, self._folder = reference, config, folder
        self._accelerator, self._progress = accelerator, progress
        self._report = LiveReport(folder.path, progress)
        self._frozen = config.method.batch_norm == "frozen"
        self._strategy = CohortStrategy(state, devices, config, folder.append, progress)

    def start(self) -> None:
        """Evaluate what the search left, as round 0, and checkpoint it, so that no resumed run searches again."""
        if self._frozen:
            self._recalibrate()
        self._evaluate()
        self._checkpoint()

    def run(self) -> None:
        """Run the rounds that are left. Raises FederationError after three rounds without an admitted reply."""
        state, settings = self._state, self._config.federation
        self._progress.start("rounds", settings.rounds)
        self._progress.advance("rounds", state.round, f"{state.round} rounds are done")
        while state.round < settings.rounds and not state.stopped_early:
            start = time.perf_counter()
            self._take_reports()
            self._round(state.round + 1)
            self._add_seconds(time.perf_counter() - start)
            self._checkpoint()
            self._report.update()
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
        self._distil()
        due = number % settings.evaluate_every == 0 or number == settings.rounds
        if due or self._frozen:
            self._recalibrate()
        if due:
            messages = strategy.configure_evaluate(number, empty, nothing, self._grid)
            strategy.aggregate_evaluate(number, exchange(self._grid, messages, settings.round_timeout))
            self._evaluate()

    def _distil(self) -> None:
        method = self._config.method
        if method.distillation_epochs:
            seed, number = self._config.run.seed, self._state.round
            distil(
                self._state.cohorts,
                self._reference.train,
                method,
                seed=seed,
                round=number,
                accelerator=self._accelerator,
            )

    def _recalibrate(self) -> None:
        if recalibrates(self._config):
            feed = replace(self._reference.train, batch_size=self._config.federation.test_batch_size)
            recalibrate_cohorts(self._state.cohorts, feed, self._accelerator)

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
            cohort.evaluation = evaluation = evaluate_cohort(cohort, self._reference, state.round, self._accelerator)
            self._folder.append(
                "evaluation",
                round=state.round,
                cohort=cohort.name,
                accuracy=evaluation.accuracy,
                loss=evaluation.loss,
                validation_accuracy=evaluation.validation_accuracy,
            )
        update_early_stopping(state, self._config.federation.patience)

    def _take_reports(self) -> None:
        every = self._config.federation.handshake_every
        if every and self._state.round and self._state.round % every == 0:
            self._greeter.forget_all()
        take_reports(self._greeter, self._devices, self._state, self._config, self._folder, self._progress)

    def _add_seconds(self, seconds: float) -> None:
        stages = self._state.stage_seconds
        stages["rounds"] = stages.get("rounds", 0.0) + seconds

    def _checkpoint(self) -> None:
        self._state.peak_rss_bytes = max(self._state.peak_rss_bytes, peak_rss_bytes())
        save_checkpoint(self._folder.checkpoint_folder, self._state, self._config)
