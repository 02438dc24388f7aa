"""A Flower strategy for cohorts: every device gets its cohort's architecture and weights."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from common.config import Config
from common.errors import MessageError
from common.messages import EvaluateResult, Task, TrainResult, content_bytes, encode_weights
from common.progress import Progress
from server.admission import admit, admit_evaluation, one_line, status_of
from server.aggregation import CohortMean, Total, sample_cap
from server.cohorts import STRIKES, Cohort, FederationState
from server.devices import Device
from server.exchange import time_to_live
from server.methods import activation_scale, averages_updates, uses_overlap
from server.overlap import average_across
from server.robust import LEAST_DEVICES, RobustMean, is_robust
from server.sampling import local_epochs, sample_devices


@dataclass(frozen=True)
class Sent:
    """One message under way: to which device of which cohort, with which task."""

    message: Message
    device: Device
    cohort: Cohort
    task: Task


@dataclass(frozen=True)
class Outcome:
    """What became of one device in a round: trained, rejected, late or failed, and if not trained, why."""

    device: str
    status: str
    samples: int = 0
    loss: float = 0.0
    reason: str = ""


class CohortStrategy(Strategy):
    """Federated averaging within each cohort of `state`, or also across them; it updates `state` in place.

    `devices` are those that can be reached, by name; the federation may add to them between rounds. The models live in
    `state`, so the arrays that Flower passes to and from a strategy stay empty. `record` is given the events of
    the run's metrics. Replies may be a generator: each is folded in and dropped as it arrives.
    """

    def __init__(
        self,
        state: FederationState,
        devices: dict[str, Device],
        config: Config,
        record: Callable[..., None],
        progress: Progress,
    ) -> None:
        self._state = state
        self._devices = devices
        self._settings = config.federation
        self._method = config.method
        self._overlap, self._updates = uses_overlap(config), averages_updates(config)
        self._seed = config.run.seed
        self._record = record
        self._progress = progress
        self._sent: list[Sent] = []
        self._started = 0.0
        self._bytes_before: dict[str, tuple[int, int]] = {}
        self._unprotected: set[str] = set()
        self.outcomes: dict[str, Outcome] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """One message per sampled device; offline devices are not sampled. A list, for Flower's HTTP grid needs one."""
        settings, seed = self._settings, self._seed

        def chosen(cohort: Cohort, online: list[str]) -> list[str]:
            return sample_devices(
                online,
                settings.fraction,
                settings.min_devices,
                seed=seed,
                round=server_round,
                cohort=cohort.name,
            )

        def task(cohort: Cohort, device: str) -> Task:
            return Task(
                round=server_round,
                architecture=cohort.architecture,
                weights=cohort.weights,
                seed=seed,
                epochs=local_epochs(settings.local_epochs, seed=seed, round=server_round, device=device),
                batch_size=settings.local_batch_size,
                learning_rate=settings.learning_rate,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
                max_gradient_norm=settings.max_gradient_norm,
                masked_loss=self._method.masked_loss,
                frozen_norms=self._method.batch_norm == "frozen",
                activation_scale=activation_scale(cohort.architecture, self._method),
                deadline_seconds=time_to_live(settings.round_timeout),
            )

        return self._configure(MessageType.TRAIN, server_round, grid, chosen, task)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Fold every admitted reply into its cohort's mean; a cohort without one keeps its weights."""
        means = {cohort.name: self._aggregate(cohort) for cohort in self._state.cohorts}
        caps = {cohort.name: self._sample_cap(cohort) for cohort in self._state.cohorts}
        self.outcomes = {}
        for sent, reply in self._matched(replies):
            try:
                result = admit(reply, sent.task, sent.device)
            except MessageError as error:
                means[sent.cohort.name].skip(sent.device.name)
                # what a device wrote may be part of the error
                reason = one_line(str(error))
                self._settle(server_round, sent, Outcome(sent.device.name, status_of(reply), reason=reason))
                continue
            samples = min(result.samples, caps[sent.cohort.name])
            means[sent.cohort.name].fold(sent.device.name, result.weights, samples)
            self._settle(server_round, sent, Outcome(sent.device.name, "trained", samples, result.loss), result)
        for sent in self._sent:
            if sent.device.name not in self.outcomes:
                reason = f"no reply within {self._settings.round_timeout:g} s"
                self._settle(server_round, sent, Outcome(sent.device.name, "late", reason=reason))
        totals = {name: total for name, mean in means.items() if (total := mean.result()) is not None}
        for cohort in self._state.cohorts:
            if cohort.name in totals:
                self._tell_of_protection(server_round, cohort, means[cohort.name])
            self._record_round(server_round, cohort)
        self._update(totals)
        trained = sum(outcome.status == "trained" for outcome in self.outcomes.values())
        return ArrayRecord(), MetricRecord({"sampled": len(self._sent), "trained": trained})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """One message per device that is online; none unless the run evaluates on the devices."""
        if not self._settings.device_evaluation:
            return []

        def task(cohort: Cohort, device: str) -> Task:
            return Task(
                round=server_round,
                architecture=cohort.architecture,
                weights=cohort.weights,
                batch_size=self._settings.test_batch_size,
                deadline_seconds=time_to_live(self._settings.round_timeout),
            )

        return self._configure(MessageType.EVALUATE, server_round, grid, lambda cohort, online: online, task)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The sample-weighted accuracy and loss of every cohort on its devices' own images, recorded as events."""
        scores: dict[str, EvaluateResult] = {}
        for sent, reply in self._matched(replies):
            try:
                scores[sent.device.name] = admit_evaluation(reply, sent.task, sent.device)
            except MessageError as error:
                reason = one_line(str(error))
                self._progress.note(f"round {server_round}: {sent.device.name} did not evaluate: {reason}")
        for cohort in self._state.cohorts:
            own = [scores[name] for name in self._names(cohort) if name in scores]
            samples = sum(score.samples for score in own)
            if samples:
                self._record(
                    "device_evaluation",
                    round=server_round,
                    cohort=cohort.name,
                    devices=len(own),
                    samples=samples,
                    accuracy=sum(score.samples * score.accuracy for score in own) / samples,
                    loss=sum(score.samples * score.loss for score in own) / samples,
                )
        return MetricRecord({"evaluated": len(scores)}) if self._sent else None

    def summary(self) -> None:
        """Tell how many devices each cohort has."""
        for cohort in self._state.cohorts:
            self._progress.note(f"{cohort.name}: {len(cohort.devices)} devices")

    def _configure(
        self,
        message_type: str,
        server_round: int,
        grid: Grid,
        choose: Callable[[Cohort, list[str]], list[str]],
        task: Callable[[Cohort, str], Task],
    ) -> list[Message]:
        self._started = time.monotonic()
        self._sent = []
        self._bytes_before = {cohort.name: (cohort.bytes_down, cohort.bytes_up) for cohort in self._state.cohorts}
        reachable = set(grid.get_node_ids())
        for cohort in self._state.cohorts:
            online = [
                name
                for name in cohort.devices
                if name in self._devices
                and self._devices[name].node_id in reachable
                and not self._state.is_left_out(name)
            ]
            weights = encode_weights(cohort.weights)
            for name in choose(cohort, online):
                one = task(cohort, name)
                message = Message(
                    one.encode(weights),
                    self._devices[name].node_id,
                    message_type,
                    ttl=time_to_live(self._settings.round_timeout),
                    group_id=str(server_round),
                )
                cohort.bytes_down += content_bytes(message.content)
                self._sent.append(Sent(message, self._devices[name], cohort, one))
        return [sent.message for sent in self._sent]

    def _matched(self, replies: Iterable[Message]) -> Iterator[tuple[Sent, Message]]:
        """Each reply with the message it answers: the first one per message, and no other.

        The sender named in a reply proves nothing: Flower writes node 1 into the error replies it makes itself.
        """
        waiting: dict[str, Sent] = {}
        for number, reply in enumerate(replies):
            if number == 0:  # Flower gives messages their ids when they are pushed, which the first reply proves
                waiting = {sent.message.metadata.message_id: sent for sent in self._sent}
            sent = waiting.pop(reply.metadata.reply_to_message_id, None)
            if sent is None:
                continue
            if not reply.has_error() and isinstance(reply.content, RecordDict):
                sent.cohort.bytes_up += content_bytes(reply.content)
            yield sent, reply

    def _update(self, totals: dict[str, Total]) -> None:
        """Give the cohorts their new weights; one that nobody trained learns from the others or stays as it is."""
        cohorts = self._state.cohorts
        if self._overlap:
            norms = self._method.batch_norm != "local"
            averaged = average_across(cohorts, totals, updates=self._updates, batch_norms=norms)
            for cohort, weights in zip(cohorts, averaged, strict=True):
                cohort.weights = weights
            return
        for cohort in cohorts:
            if cohort.name in totals:
                cohort.weights = totals[cohort.name].mean()

    def _aggregate(self, cohort: Cohort) -> CohortMean | RobustMean:
        if is_robust(self._settings):
            return RobustMean(self._names(cohort), cohort.weights, self._settings)
        return CohortMean(self._names(cohort))

    def _sample_cap(self, cohort: Cohort) -> int:
        """The largest number of samples that counts for one device of the cohort."""
        registered = [sent.device.report.samples for sent in self._sent if sent.cohort is cohort]
        return sample_cap(registered, self._settings.max_device_share) if registered else 0

    def _tell_of_protection(self, server_round: int, cohort: Cohort, mean: CohortMean | RobustMean) -> None:
        """Say when a cohort loses the protection that was asked for; again only after it had it back."""
        if not isinstance(mean, RobustMean) or mean.protected:
            self._unprotected.discard(cohort.name)
        elif cohort.name not in self._unprotected:
            self._unprotected.add(cohort.name)
            self._progress.note(
                f"round {server_round}: {cohort.name} is averaged without protection: robust aggregation needs the "
                f"models of {LEAST_DEVICES} devices; a smaller max-cohorts puts more devices into each cohort"
            )

    def _settle(self, server_round: int, sent: Sent, outcome: Outcome, result: TrainResult | None = None) -> None:
        if self._state.strike(outcome.device, outcome.status):
            reason = f"{outcome.reason}; after {STRIKES} such rounds in a row it is left out"
            outcome = replace(outcome, reason=reason)
        self.outcomes[sent.device.name] = outcome
        self._record(
            "device",
            round=server_round,
            device=outcome.device,
            cohort=sent.cohort.name,
            status=outcome.status,
            seconds=result.seconds if result else time.monotonic() - self._started,
            reason=outcome.reason,
        )
        self._progress.advance("rounds", 0, f"round {server_round}: {outcome.device} {outcome.status}")
        if outcome.reason:
            self._progress.note(f"round {server_round}: {outcome.device} {outcome.status}: {outcome.reason}")

    def _record_round(self, server_round: int, cohort: Cohort) -> None:
        sampled = self._names(cohort)
        trained = [self.outcomes[name] for name in sampled if self.outcomes[name].status == "trained"]
        samples = sum(outcome.samples for outcome in trained)
        down, up = self._bytes_before[cohort.name]
        self._record(
            "round",
            round=server_round,
            cohort=cohort.name,
            sampled=sampled,
            trained=[outcome.device for outcome in trained],
            samples=samples,
            train_loss=sum(outcome.samples * outcome.loss for outcome in trained) / samples if samples else None,
            seconds=time.monotonic() - self._started,
            bytes_down=cohort.bytes_down - down,
            bytes_up=cohort.bytes_up - up,
            **({"protected": cohort.name not in self._unprotected} if is_robust(self._settings) else {}),
        )

    def _names(self, cohort: Cohort) -> list[str]:
        return [sent.device.name for sent in self._sent if sent.cohort is cohort]
