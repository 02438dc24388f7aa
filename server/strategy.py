"""The Flower strategy that carries every method: it asks the method what to send, and gives it what was admitted."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from common.errors import MessageError
from common.message_arrays import content_bytes, encode_arrays
from common.messages import WEIGHTS, EvaluateResult, Result, Task
from common.methods.evaluation import EVALUATE, EvaluationOrder
from common.simulated_time import pace_of
from server.admission import admit, admit_evaluation, one_line, status_of
from server.aggregation import plausible_images, sample_cap
from server.cohorts import STRIKES, Cohort, FederationState, Spent
from server.devices import Device
from server.exchange import time_to_live
from server.membership import may_take_part
from server.methods.method import Method
from server.ordering import InOrder
from server.report.own_scores import OWN_EVENT
from server.run import Run
from server.sampling import sample_devices
from server.steps import Order, Step


@dataclass(frozen=True)
class Sent:
    """One message under way: to which device, in which step, with which order, and how many bytes it has."""

    message: Message
    bytes: int
    device: Device
    step: Step
    order: Order


@dataclass(frozen=True)
class Outcome:
    """What became of one device in a round: trained, rejected, late or failed, and if not trained, why."""

    device: str
    status: str
    samples: int = 0
    loss: float = 0.0
    reason: str = ""


class MethodStrategy(Strategy):
    """One exchange a round: all steps of the method go out together; it updates `method` and `state` in place.

    `devices` are those that can be reached, by name; the federation may add to them between rounds. The models live in
    the method: what Flower hands in is not looked at, and what it is given are the cohorts' weights by name. Replies
    may be a generator: each is folded in and dropped as it arrives. It works in our own loop (`server.rounds`) and
    under `Strategy.start`.
    """

    def __init__(self, method: Method, state: FederationState, devices: dict[str, Device], run: Run) -> None:
        self._method, self._state, self._devices, self._run = method, state, devices, run
        self._settings = run.config.federation
        self._sent: list[Sent] = []
        self._steps: Sequence[Step] = ()
        self._before: dict[int, Spent] = {}
        self._slowest: dict[int, float] = {}
        self._most_images = 0
        self._started = 0.0
        self.outcomes: dict[str, Outcome] = {}

    @property
    def _too_late(self) -> str:
        return f"no reply within {self._settings.round_timeout:g} s; raise --round-timeout if devices need longer"

    def arrays(self) -> ArrayRecord:
        """Every cohort's weights, as Flower keeps them."""
        return encode_arrays({cohort.name: cohort.weights for cohort in self._method.cohorts})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """One message per sampled device; offline devices are not sampled. A list, for Flower's HTTP grid needs one."""
        with self._method_at_work():
            steps = self._method.steps(server_round)

        def chosen(step: Step, online: list[str]) -> list[str]:
            return sample_devices(
                online,
                self._settings.fraction if step.share is None else step.share,
                self._settings.min_devices,
                seed=self._run.seed,
                round=server_round,
                cohort=step.cohort.name,
            )

        return self._configure(MessageType.TRAIN, server_round, grid, steps, chosen)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Give the method every admitted answer, finish its round, and record what happened."""
        waiting = {id(step): InOrder[Result](self._names(step)) for step in self._steps}
        caps = {id(step): self._sample_cap(step) for step in self._steps}
        self.outcomes = {}
        for sent, reply, size in self._matched(replies):
            step, name = sent.step, sent.device.name
            answer: Result | None = None
            try:
                answer = admit(reply, step, self._method.contract.name, server_round, sent.device, self._most_images)
            except MessageError as error:
                status = status_of(reply)
                # what a device wrote may be part of the error; of a late one Flower says only that it has nothing
                reason = self._too_late if status == "late" else one_line(str(error))
                self._settle(server_round, sent, Outcome(name, status, reason=reason))
            else:
                self._charge(sent, answer, size)
                # a claim that no server can verify counts no more than its share
                answer = replace(answer, samples=min(answer.samples, caps[id(step)]))
                self._settle(server_round, sent, Outcome(name, "trained", answer.samples, answer.loss), answer.seconds)
            if step.in_order:
                self._fold(step, waiting[id(step)].settle(name, answer))
            elif answer is not None:
                self._fold(step, [(name, answer)])
        for sent in self._sent:
            if sent.device.name not in self.outcomes:
                self._settle(server_round, sent, Outcome(sent.device.name, "late", reason=self._too_late))
        for step in self._steps:
            if step.in_order:
                self._fold(step, waiting[id(step)].rest())
        seconds = time.monotonic() - self._started
        with self._method_at_work():
            self._method.finish(server_round)
        for step in self._steps:
            self._record_round(server_round, step, seconds)
        self._state.simulated_seconds += max(self._slowest.values(), default=0.0)
        self._state.round = server_round
        self._state.method_bytes = max(self._state.method_bytes, _held_bytes(self._method))
        trained = sum(outcome.status == "trained" for outcome in self.outcomes.values())
        return self.arrays(), MetricRecord({"sampled": len(self._sent), "trained": trained})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """After the last round one message per device that holds images out and is online; none before.

        Each carries the cohort's weights, so that after every round they would add half to a run's traffic. Who was
        late in the round is not waited for again.
        """
        over = server_round >= self._settings.rounds or self._state.stopped_early
        if not (self._settings.device_evaluation and over):
            self._sent, self._steps, self._before, self._slowest = [], (), {}, {}
            return []
        order = EvaluationOrder(batch_size=self._settings.test_batch_size)

        def step(cohort: Cohort) -> Step:
            macs = cohort.network.costs.macs
            return Step(EVALUATE, cohort, {WEIGHTS: cohort.weights}, {}, lambda device: Order(order, macs))

        late = {name for name, outcome in self.outcomes.items() if outcome.status == "late"}

        def able(step: Step, online: list[str]) -> list[str]:
            return [name for name in online if self._devices[name].report.held_out and name not in late]

        steps = [step(cohort) for cohort in self._method.cohorts]
        return self._configure(MessageType.EVALUATE, server_round, grid, steps, able)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Accuracy and loss of every device's model on its own images, recorded as an event each."""
        scores: dict[str, EvaluateResult] = {}
        for sent, reply, size in self._matched(replies):
            try:
                score = admit_evaluation(reply, server_round, sent.device)
            except MessageError as error:
                reason = one_line(str(error))
                self._run.progress.note(f"round {server_round}: {sent.device.name} did not evaluate: {reason}")
            else:
                scores[sent.device.name] = score
                self._charge(sent, score, size)
        seconds = time.monotonic() - self._started
        for step in self._steps:
            asked = self._names(step)
            if asked:
                self._record_step(server_round, step, seconds)
            for name in asked:
                if name in scores:
                    self._run.folder.append(
                        OWN_EVENT,
                        round=server_round,
                        device=name,
                        cohort=step.cohort.name,
                        own_accuracy=scores[name].accuracy,
                        own_loss=scores[name].loss,
                        own_images=scores[name].samples,
                    )
        self._state.simulated_seconds += max(self._slowest.values(), default=0.0)
        return MetricRecord({"evaluated": len(scores)}) if self._sent else None

    def summary(self) -> None:
        """Tell how many devices each cohort has."""
        for cohort in self._method.cohorts:
            self._run.progress.note(f"{cohort.name}: {len(cohort.devices)} devices")

    def _configure(
        self,
        message_type: str,
        server_round: int,
        grid: Grid,
        steps: Sequence[Step],
        choose: Callable[[Step, list[str]], list[str]],
    ) -> list[Message]:
        self._started = time.monotonic()
        self._sent, self._steps = [], steps
        self._before = {id(step): replace(step.cohort.spent_on(step.name)) for step in steps}
        self._slowest = {id(step): 0.0 for step in steps}
        registered = [device.report.samples for device in self._devices.values()]
        self._most_images = plausible_images(registered, self._run.reference.shared_images) if registered else 0
        reachable = set(grid.get_node_ids())
        time_left = time_to_live(self._settings.round_timeout)
        for step in steps:
            online = [
                name
                for name in may_take_part(step.cohort, self._devices, self._state)
                if self._devices[name].node_id in reachable
            ]
            shared = encode_arrays(step.arrays)
            for name in choose(step, online):
                device = self._devices[name]
                order = step.order(device)
                task = Task(
                    method=self._method.contract.name,
                    step=step.name,
                    round=server_round,
                    network=step.cohort.network,
                    order=order.settings.to_mapping(),
                    arrays={**step.arrays, **order.arrays},
                    seed=self._run.seed,
                    deadline_seconds=time_left,
                    class_names=self._run.reference.class_names,
                )
                content = task.encode(encode_arrays(order.arrays, shared))
                message = Message(content, device.node_id, message_type, ttl=time_left, group_id=str(server_round))
                size = content_bytes(content)
                step.cohort.spent_on(step.name).bytes_down += size
                self._sent.append(Sent(message, size, device, step, order))
        return [sent.message for sent in self._sent]

    def _matched(self, replies: Iterable[Message]) -> Iterator[tuple[Sent, Message, int]]:
        """Each reply with the message it answers and its bytes: the first one per message, and no other.

        The sender named in a reply proves nothing: Flower writes node 1 into the error replies it makes itself.
        """
        waiting: dict[str, Sent] = {}
        for number, reply in enumerate(replies):
            if number == 0:  # Flower gives messages their ids when they are pushed, which the first reply proves
                waiting = {sent.message.metadata.message_id: sent for sent in self._sent}
            sent = waiting.pop(reply.metadata.reply_to_message_id, None)
            if sent is None:
                continue
            carries = not reply.has_error() and isinstance(reply.content, RecordDict)
            size = content_bytes(reply.content) if carries else 0
            sent.step.cohort.spent_on(sent.step.name).bytes_up += size
            yield sent, reply, size

    def _fold(self, step: Step, answers: Iterable[tuple[str, Result]]) -> None:
        with self._method_at_work():
            for name, result in answers:
                self._method.fold(step, self._devices[name], result)

    @contextmanager
    def _method_at_work(self) -> Iterator[None]:
        """Count what the method itself takes on the server, without waiting for devices."""
        start = time.perf_counter()
        yield
        self._state.method_seconds += time.perf_counter() - start

    def _sample_cap(self, step: Step) -> int:
        """The largest number of samples that counts for one device of the step."""
        registered = [sent.device.report.samples for sent in self._sent if sent.step is step]
        return sample_cap(registered, self._settings.max_device_share) if registered else 0

    def _charge(self, sent: Sent, answer: Result | EvaluateResult, answer_bytes: int) -> None:
        """Count what a device did; a claim beyond what is plausible would be all that the run's costs tell."""
        believed = replace(answer, samples=min(answer.samples, self._most_images))
        spent, macs = sent.step.cohort.spent_on(sent.step.name), _macs_of(sent, believed)
        spent.device_macs += macs
        spent.answers += 1
        report = sent.device.report
        pace = pace_of(report.profile, report.budget, self._run.config.fleet.max_latency_ms)
        seconds = pace.seconds(sent.step.cohort.network.costs, macs, sent.bytes, answer_bytes)
        self._slowest[id(sent.step)] = max(self._slowest[id(sent.step)], seconds)

    def _settle(self, server_round: int, sent: Sent, outcome: Outcome, seconds: float | None = None) -> None:
        if self._state.strike(outcome.device, outcome.status):
            reason = f"{outcome.reason}; after {STRIKES} such rounds in a row it is left out"
            outcome = replace(outcome, reason=reason)
        self.outcomes[outcome.device] = outcome
        self._run.folder.append(
            "device",
            round=server_round,
            device=outcome.device,
            cohort=sent.step.cohort.name,
            status=outcome.status,
            seconds=time.monotonic() - self._started if seconds is None else seconds,
            reason=outcome.reason,
        )
        progress = self._run.progress
        progress.advance("rounds", 0, f"round {server_round}: {outcome.device} {outcome.status}")
        if outcome.reason:
            progress.note(f"round {server_round}: {outcome.device} {outcome.status}: {outcome.reason}")

    def _record_round(self, server_round: int, step: Step, seconds: float) -> None:
        self._record_step(server_round, step, seconds)
        sampled = self._names(step)
        trained = [self.outcomes[name] for name in sampled if self.outcomes[name].status == "trained"]
        samples = sum(outcome.samples for outcome in trained)
        self._run.folder.append(
            "round",
            round=server_round,
            cohort=step.cohort.name,
            sampled=sampled,
            trained=[outcome.device for outcome in trained],
            samples=samples,
            train_loss=sum(outcome.samples * outcome.loss for outcome in trained) / samples if samples else None,
            seconds=seconds,
            **self._method.notes(step.cohort),
        )

    def _record_step(self, server_round: int, step: Step, seconds: float) -> None:
        """What one step of one cohort cost in this round; the only place where a run's traffic is written down."""
        before, now = self._before[id(step)], step.cohort.spent_on(step.name)
        self._run.folder.append(
            "step",
            round=server_round,
            cohort=step.cohort.name,
            step=step.name,
            asked=len(self._names(step)),
            answers=now.answers - before.answers,
            bytes_down=now.bytes_down - before.bytes_down,
            bytes_up=now.bytes_up - before.bytes_up,
            device_macs=now.device_macs - before.device_macs,
            seconds=seconds,
            simulated_seconds=self._slowest[id(step)],
        )

    def _names(self, step: Step) -> list[str]:
        return [sent.device.name for sent in self._sent if sent.step is step]


def _macs_of(sent: Sent, answer: Result | EvaluateResult) -> int:
    """The multiply-accumulates that an admitted answer took."""
    if sent.step.work is not None and isinstance(answer, Result):
        return sent.step.work(sent.order, answer)
    return sent.order.macs_per_sample * answer.samples


def _held_bytes(method: Method) -> int:
    """Bytes of all weights and arrays that the method holds between two rounds."""
    weights = sum(cohort.weights.nbytes for cohort in method.cohorts)
    return weights + sum(values.nbytes for values in method.snapshot().arrays.values())
