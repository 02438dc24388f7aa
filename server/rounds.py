"""The rounds of a federation: train, aggregate, evaluate, checkpoint, until they are over or nothing improves."""

import time

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from common.errors import FederationError
from common.methods.evaluation import EVALUATE
from common.process import peak_rss_bytes
from server.checkpoint import save_federation
from server.cohorts import FederationState
from server.devices import Device
from server.evaluation import evaluate_cohort, is_due, mean_over_devices, update_early_stopping
from server.exchange import exchange, pause_after
from server.handshake import LONGEST_PAUSE_SECONDS, Greeter
from server.membership import may_take_part, take_reports
from server.methods.method import Method
from server.report.live import LiveReport
from server.run import Run
from server.strategy import MethodStrategy

FRUITLESS_LIMIT = 3
"""So many rounds in a row without one admitted reply end the run: it would only look like success."""


class Rounds:
    """Round after round of `method`, which it checkpoints with `state` after each."""

    def __init__(
        self, grid: Grid, greeter: Greeter, method: Method, state: FederationState, devices: dict[str, Device], run: Run
    ) -> None:
        self._grid, self._greeter, self._devices = grid, greeter, devices
        self._method, self._state, self._run = method, state, run
        self._settings = run.config.federation
        self._report = LiveReport(run.folder.path, run.progress)
        self._strategy = MethodStrategy(method, state, devices, run)

    def start(self) -> None:
        """Evaluate what was prepared, as round 0, and checkpoint it, so that no resumed run prepares it again."""
        self._evaluate()
        self._checkpoint()

    def run(self) -> None:
        """Run the rounds that are left.

        A round without any admitted reply is not checkpointed until the run is over: a run that ends because all
        devices lost their data or their network makes it again when it is resumed. Raises FederationError after three
        such rounds in a row, or if no device ever trained.
        """
        state, progress = self._state, self._run.progress
        progress.start("rounds", self._settings.rounds)
        progress.advance("rounds", state.round, f"{state.round} rounds are done")
        while state.round < self._settings.rounds and not state.stopped_early:
            start = time.perf_counter()
            self._take_reports()
            self._wait_for_devices()
            self._round(state.round + 1)
            self._add_seconds(time.perf_counter() - start)
            if not state.fruitless_rounds:
                self._checkpoint()
            self._report.update()
            accuracy = mean_over_devices(self._method.cohorts, "accuracy")
            progress.advance("rounds", 1, f"round {state.round}: mean accuracy {accuracy:.1%}")
        self._require_training()
        if state.fruitless_rounds:
            self._checkpoint()
        why = " (validation accuracy stopped improving)" if state.stopped_early else ""
        progress.finish("rounds", f"{state.round} rounds{why}")

    def _round(self, number: int) -> None:
        strategy, timeout = self._strategy, self._settings.round_timeout
        empty, nothing = ArrayRecord(), ConfigRecord()
        messages = strategy.configure_train(number, empty, nothing, self._grid)
        strategy.aggregate_train(number, exchange(self._grid, messages, timeout))
        self._require_progress(number)
        if is_due(number, self._settings):
            self._evaluate()
            messages = strategy.configure_evaluate(number, empty, nothing, self._grid)
            strategy.aggregate_evaluate(number, exchange(self._grid, messages, timeout))

    def _require_progress(self, number: int) -> None:
        if any(outcome.status == "trained" for outcome in self._strategy.outcomes.values()):
            self._state.fruitless_rounds = 0
            return
        self._state.fruitless_rounds += 1
        self._run.progress.note(f"round {number}: no reply was admitted ({self._first_trouble()})")
        if self._state.fruitless_rounds >= FRUITLESS_LIMIT:
            raise FederationError(
                f"no reply was admitted in {FRUITLESS_LIMIT} rounds in a row; {self._first_trouble()}"
            )

    def _require_training(self) -> None:
        """Raise FederationError for a run with rounds in which no device ever trained: it only looks like a result."""
        spent = [one for cohort in self._method.cohorts for step, one in cohort.spent.items() if step != EVALUATE]
        if self._state.round and not any(one.answers for one in spent):
            rounds = f"{self._state.round} round" + "s" * (self._state.round > 1)
            raise FederationError(f"no device trained in any of {rounds}; {self._first_trouble()}")

    def _first_trouble(self) -> str:
        outcomes = list(self._strategy.outcomes.values())
        if outcomes:
            return f"first: {outcomes[0].device}: {outcomes[0].reason}"
        return "no device that is online may take part" if self._greeter.online() else "no device is online"

    def _evaluate(self) -> None:
        method, state = self._method, self._state
        for cohort in method.cohorts:
            cohort.evaluation = evaluation = evaluate_cohort(method, cohort, self._run, state.round)
            self._run.folder.append(
                "evaluation",
                round=state.round,
                cohort=cohort.name,
                test_accuracy=evaluation.accuracy,
                loss=evaluation.loss,
                validation_accuracy=evaluation.validation_accuracy,
            )
        update_early_stopping(state, method.cohorts, self._settings.patience)

    def _take_reports(self) -> None:
        every = self._settings.handshake_every
        if every and self._state.round and self._state.round % every == 0:
            self._greeter.forget_all()
        take_reports(self._greeter, self._devices, self._method, self._state, self._run)

    def _wait_for_devices(self) -> None:
        """Wait until a device that may take part is online, as long as a round may take; those who come are greeted."""
        timeout, start = self._settings.round_timeout, time.monotonic()
        deadline, told = start + timeout, False
        while self._is_nobody_there() and time.monotonic() < deadline:
            if not told:
                who = "no device that may take part" if self._greeter.online() else "no device"
                self._run.progress.note(
                    f"round {self._state.round + 1}: {who} is online; waiting up to {timeout:g} s for one"
                )
                told = True
            pause_after(start, LONGEST_PAUSE_SECONDS)
            start = time.monotonic()
            take_reports(self._greeter, self._devices, self._method, self._state, self._run)

    def _is_nobody_there(self) -> bool:
        """Whether all who may take part are offline; where nobody may who is known, whether nobody is online at all."""
        online = self._greeter.online()
        able = {
            self._devices[name].node_id
            for cohort in self._method.cohorts
            for name in may_take_part(cohort, self._devices, self._state)
        }
        return not able & online if able else not online

    def _add_seconds(self, seconds: float) -> None:
        stages = self._state.stage_seconds
        stages["rounds"] = stages.get("rounds", 0.0) + seconds

    def _checkpoint(self) -> None:
        self._state.peak_rss_bytes = max(self._state.peak_rss_bytes, peak_rss_bytes())
        save_federation(self._run, self._method, self._state)
