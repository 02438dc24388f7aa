"""A whole federated run in four stages: handshake, search, rounds, summary."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from flwr.serverapp import Grid

from common.config import Config
from common.learning import pick_accelerator
from common.process import peak_rss_bytes
from common.progress import Progress
from dac.model_file import metadata
from server.checkpoint import load_checkpoint
from server.cohorts import Cohort, FederationState
from server.evaluation import mean_over_devices
from server.handshake import Greeter, handshake
from server.membership import reassign, sort_devices, write_budgets
from server.methods import epochs_on_reference, find_cohorts
from server.reference import load_reference
from server.refine import module_of
from server.rounds import Rounds
from server.run_facts import closing_facts, record_facts
from server.run_folder import RunFolder


def federate(grid: Grid, config: Config, folder: RunFolder, progress: Progress, resume: bool) -> dict[str, Any]:
    """Run the federation that `config` describes, keep everything in `folder`, and return its summary.

    With `resume` the run in `folder` goes on where its checkpoint, or its unfinished search, left it, and ends with the
    weights an uninterrupted run would have. Raises FederationError if no device answers or every reply is rejected
    three rounds in a row, BudgetError if no architecture fits any device, CheckpointError if there is nothing sound to
    resume from, and DataError or ConfigurationError for settings that cannot work.
    """
    accelerator = pick_accelerator(config.run.accelerator)
    saved = load_checkpoint(folder.checkpoint_folder, config) if resume else None
    if resume:
        folder.truncate_after(saved.round if saved else -1)
    reference = load_reference(config)
    folder.preparation = reference.preparation
    record_facts(folder, reference)
    settings = config.federation
    seconds = dict(saved.stage_seconds) if saved else {}
    greeter = Greeter(grid, settings.handshake_timeout, progress)
    with _stage("handshake", folder, seconds):
        reported = handshake(greeter, config.fleet.devices, settings.handshake_timeout, progress)
    if saved is None:
        with _stage("search", folder, seconds):
            state = FederationState(find_cohorts(reported, reference, config, folder, accelerator, progress))
        state.budgets = {one.name: one.budget for one in reported}
    else:
        state = saved
        for one in reported:
            reassign(one, state, config, folder, progress)
    state.stage_seconds = seconds
    sort_devices(state, reported)
    write_budgets(folder, state, reported)
    by_name = {one.name: one for one in reported}
    rounds = Rounds(grid, greeter, state, by_name, reference, config, folder, accelerator, progress)
    before = seconds.get("rounds", 0.0)
    if saved is None:
        rounds.start()
    rounds.run()
    _record_stage("rounds", folder, seconds.get("rounds", 0.0) - before)
    _save_models(state, folder)
    summary = {**summarise(state, config, folder), **closing_facts(state, reference, folder, accelerator)}
    folder.write_summary(summary)
    return summary


def summarise(state: FederationState, config: Config, folder: RunFolder) -> dict[str, Any]:
    """The result of a run, ready for summary.json; accuracies are those of the last evaluation.

    `device_accuracy` is the mean over devices of the test accuracy of their cohort's model. `outcomes` counts what
    became of devices over all rounds; one that was refused before the first counts as rejected once. `over_budget` is
    the number of a cohort's devices that could not hold its architecture, which only fedavg's oracle has.
    """
    return {
        "method": config.method.method,
        "data": config.data.data,
        "seed": config.run.seed,
        "rounds": state.round,
        "stopped_early": state.stopped_early,
        "device_accuracy": mean_over_devices(state, "accuracy"),
        "epochs_on_reference": epochs_on_reference(config, folder),
        "outcomes": _outcomes(folder),
        "cohorts": [_cohort_summary(cohort, state) for cohort in state.cohorts],
        "seconds_total": sum(state.stage_seconds.values()),
        "stages": dict(state.stage_seconds),
        "bytes_down": sum(cohort.bytes_down for cohort in state.cohorts),
        "bytes_up": sum(cohort.bytes_up for cohort in state.cohorts),
        "peak_rss_bytes": max(state.peak_rss_bytes, peak_rss_bytes()),
    }


def _outcomes(folder: RunFolder) -> dict[str, int]:
    counts = Counter(event["status"] for event in folder.events("device"))
    return {status: counts[status] for status in ("trained", "late", "failed", "rejected")}


def _cohort_summary(cohort: Cohort, state: FederationState) -> dict[str, Any]:
    costs = cohort.architecture.costs
    evaluation = cohort.evaluation
    return {
        "cohort": cohort.name,
        "devices": len(cohort.devices),
        "over_budget": sum(not state.budgets[name].admits(costs) for name in cohort.devices),
        "macs": costs.macs,
        "params": costs.params,
        "peak_memory_bytes": costs.peak_memory_bytes,
        "accuracy": evaluation.accuracy if evaluation else None,
        "validation_accuracy": evaluation.validation_accuracy if evaluation else None,
        "bytes_moved": cohort.bytes_down + cohort.bytes_up,
    }


def _save_models(state: FederationState, folder: RunFolder) -> None:
    for cohort in state.cohorts:
        module = module_of(cohort, torch.device("cpu"))
        facts = metadata(cohort.name, "federated", cohort.architecture, folder.preparation)
        folder.save_model(cohort.name, module.state_dict(), facts)


@contextmanager
def _stage(name: str, folder: RunFolder, seconds: dict[str, float]) -> Iterator[None]:
    """Time a stage: into the metrics, and added to what an interrupted run spent on it before."""
    start = time.perf_counter()
    yield
    elapsed = time.perf_counter() - start
    seconds[name] = seconds.get(name, 0.0) + elapsed
    _record_stage(name, folder, elapsed)


def _record_stage(name: str, folder: RunFolder, seconds: float) -> None:
    folder.append("stage", stage=name, seconds=seconds, peak_rss_bytes=peak_rss_bytes())
