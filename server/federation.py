"""A whole federated run in four stages: handshake, search, rounds, summary."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.serverapp import Grid

from common.config import Config
from common.costs import costs_of
from common.learning import pick_device
from common.process import peak_rss_bytes
from common.progress import Progress
from common.weights import Layout, load_weights
from server.checkpoint import load_checkpoint
from server.cohorts import Cohort, FederationState
from server.devices import Device
from server.evaluation import mean_over_devices
from server.handshake import Greeter, handshake
from server.reference import load_reference
from server.rounds import Rounds, place, sort_devices, write_budgets
from server.run_folder import RunFolder
from server.search_stage import affordable, find_cohorts


def federate(grid: Grid, config: Config, folder: RunFolder, progress: Progress, resume: bool) -> dict[str, Any]:
    """Run the federation that `config` describes, keep everything in `folder`, and return its summary.

    With `resume` the run in `folder` goes on where its checkpoint, or its unfinished search, left it, and ends with the
    weights an uninterrupted run would have. Raises FederationError if no device answers or every reply is rejected
    three rounds in a row, BudgetError if no architecture fits any device, CheckpointError if there is nothing sound to
    resume from, and DataError or ConfigurationError for settings that cannot work.
    """
    device = pick_device(config.run.accelerator)
    saved = load_checkpoint(folder.checkpoint_folder, config) if resume else None
    if resume:
        folder.truncate_after(saved.round if saved else -1)
    reference = load_reference(config)
    settings = config.federation
    seconds = dict(saved.stage_seconds) if saved else {}
    greeter = Greeter(grid, settings.handshake_timeout, progress)
    with _stage("handshake", folder, seconds):
        reported = handshake(greeter, config.fleet.devices, settings.handshake_timeout, progress)
    if saved is None:

        def refuse(device: Device, reason: str) -> None:
            progress.note(f"{device.name} is left out: {reason}")
            folder.append("device", round=0, device=device.name, cohort="", status="rejected", seconds=0, reason=reason)

        devices = affordable(reported, reference, refuse)
        with _stage("search", folder, seconds):
            state = FederationState(find_cohorts(devices, reference, config, folder, device, progress))
    else:
        state = saved
        devices = [one for one in reported if place(one, state, progress)]
    state.stage_seconds = seconds
    sort_devices(state, devices)
    write_budgets(folder, state, devices)
    by_name = {one.name: one for one in devices}
    rounds = Rounds(grid, greeter, state, by_name, reference, config, folder, device, progress)
    before = seconds.get("rounds", 0.0)
    if saved is None:
        rounds.start()
    rounds.run()
    _record_stage("rounds", folder, seconds.get("rounds", 0.0) - before)
    _save_models(state, folder)
    summary = summarise(state, config)
    folder.write_summary(summary)
    return summary


def summarise(state: FederationState, config: Config) -> dict[str, Any]:
    """The result of a run, ready for summary.json; accuracies are those of the last evaluation.

    `device_accuracy` is the mean over devices of the test accuracy of their cohort's model.
    """
    return {
        "method": "dac",
        "data": config.data.data,
        "seed": config.run.seed,
        "rounds": state.round,
        "stopped_early": state.stopped_early,
        "device_accuracy": mean_over_devices(state, "accuracy"),
        "cohorts": [_cohort_summary(cohort) for cohort in state.cohorts],
        "seconds_total": sum(state.stage_seconds.values()),
        "stages": dict(state.stage_seconds),
        "bytes_down": sum(cohort.bytes_down for cohort in state.cohorts),
        "bytes_up": sum(cohort.bytes_up for cohort in state.cohorts),
        "peak_rss_bytes": max(state.peak_rss_bytes, peak_rss_bytes()),
    }


def _cohort_summary(cohort: Cohort) -> dict[str, Any]:
    costs = costs_of(cohort.architecture)
    evaluation = cohort.evaluation
    return {
        "cohort": cohort.name,
        "devices": len(cohort.devices),
        "macs": costs.macs,
        "params": costs.params,
        "peak_memory_bytes": costs.peak_memory_bytes,
        "accuracy": evaluation.accuracy if evaluation else None,
        "validation_accuracy": evaluation.validation_accuracy if evaluation else None,
        "bytes_moved": cohort.bytes_down + cohort.bytes_up,
    }


def _save_models(state: FederationState, folder: RunFolder) -> None:
    for cohort in state.cohorts:
        module = cohort.architecture.build(0)
        load_weights(module, Layout.of(cohort.architecture).unflatten(cohort.weights))
        folder.save_model(cohort.name, module.state_dict(), {"architecture": cohort.architecture.to_json()})


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
