"""Central evaluation of the cohorts, and early stopping on the validation split."""

from collections.abc import Sequence

from common.groups import FederationSettings
from common.learning import evaluate
from server.cohorts import Cohort, Evaluation, FederationState
from server.methods.method import Method
from server.run import Run


def is_due(number: int, settings: FederationSettings) -> bool:
    """Whether models are evaluated after this round; always after the last."""
    return number % settings.evaluate_every == 0 or number == settings.rounds


def evaluate_cohort(method: Method, cohort: Cohort, run: Run, number: int) -> Evaluation:
    """The cohort's model on the test set and on the validation split."""
    module = method.module(cohort)
    test = evaluate(module, run.reference.test, run.accelerator)
    validation = evaluate(module, run.reference.validation, run.accelerator)
    return Evaluation(number, test.accuracy, test.loss, validation.accuracy)


def mean_over_devices(cohorts: Sequence[Cohort], figure: str) -> float:
    """The mean over devices of a figure of their cohort's last evaluation."""
    pairs = [
        (len(cohort.devices), float(getattr(cohort.evaluation, figure)))
        for cohort in cohorts
        if cohort.evaluation is not None
    ]
    devices = sum(count for count, _ in pairs)
    return sum(count * value for count, value in pairs) / devices if devices else 0.0


def update_early_stopping(state: FederationState, cohorts: Sequence[Cohort], patience: int) -> None:
    """Note whether the last evaluation was the best, and stop after `patience` that were not (0 never stops).

    Only the validation split decides: a run chosen by the test set would report too high an accuracy.
    """
    accuracy = mean_over_devices(cohorts, "validation_accuracy")
    if accuracy > state.best_accuracy:
        state.best_accuracy, state.stale_evaluations = accuracy, 0
    else:
        state.stale_evaluations += 1
    state.stopped_early = 0 < patience <= state.stale_evaluations
