"""Central evaluation of the cohorts, and early stopping on the validation split."""

import torch

from common.learning import evaluate
from server.cohorts import Cohort, Evaluation, FederationState
from server.reference import Reference
from server.refine import module_of


def evaluate_cohort(cohort: Cohort, reference: Reference, round: int, accelerator: torch.device) -> Evaluation:
    """The cohort's model on the test set and on the validation split."""
    module = module_of(cohort, accelerator)
    test = evaluate(module, reference.test, accelerator)
    validation = evaluate(module, reference.validation, accelerator)
    return Evaluation(round, test.accuracy, test.loss, validation.accuracy)


def mean_over_devices(state: FederationState, figure: str) -> float:
    """The mean over devices of a figure of their cohort's last evaluation."""
    pairs = [
        (len(cohort.devices), float(getattr(cohort.evaluation, figure)))
        for cohort in state.cohorts
        if cohort.evaluation is not None
    ]
    devices = sum(count for count, _ in pairs)
    return sum(count * value for count, value in pairs) / devices if devices else 0.0


def update_early_stopping(state: FederationState, patience: int) -> None:
    """Note whether the last evaluation was the best, and stop after `patience` that were not (0 never stops).

    Only the validation split decides: a run chosen by the test set would report too high an accuracy.
    """
    accuracy = mean_over_devices(state, "validation_accuracy")
    if accuracy > state.best_accuracy:
        state.best_accuracy, state.stale_evaluations = accuracy, 0
    else:
        state.stale_evaluations += 1
    state.stopped_early = 0 < patience <= state.stale_evaluations
