"""A whole federated run in four stages: handshake, search, rounds, summary."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from common.budget import DeviceBudget
from common.config import Config
from common.effects import require_effect
from common.errors import CheckpointError
from common.fleet import is_fleet_file
from common.groups import ModelSettings
from common.learning import pick_accelerator
from common.methods import contract_of
from common.methods.evaluation import EVALUATE
from common.process import peak_rss_bytes
from common.progress import Progress
from common.search_space import SearchSpace
from dac.model_file import metadata
from dac.strides import base_of, is_chosen, with_strides
from server.checkpoint import load_federation
from server.cohorts import Cohort, FederationState, Spent, require_architecture
from server.evaluation import mean_over_devices
from server.handshake import Greeter, handshake
from server.membership import reassign, sort_devices, write_budgets
from server.methods import server_half
from server.methods.method import Method
from server.reference import load_reference
from server.report.own_scores import OWN_EVENT, OwnScore, mean_own, on_devices, own_scores
from server.report.progress import Point, milestones, progress_of
from server.rounds import Rounds
from server.run import Run
from server.run_facts import closing_facts, record_facts
from server.run_folder import RunFolder
from server.threads import threads_of


def federate(grid: Grid, config: Config, folder: RunFolder, progress: Progress, resume: bool) -> dict[str, Any]:
    """Run the federation that `config` describes, keep everything in `folder`, and return its summary.

    With `resume` the run in `folder` goes on where its checkpoint, or its unfinished search, left it, and ends with the
    weights an uninterrupted run would have. Raises FederationError if no device answers or every reply is rejected
    three rounds in a row, BudgetError if no architecture fits any device, CheckpointError if there is nothing sound to
    resume from, and DataError or ConfigurationError for settings that cannot work.
    """
    if not resume:
        require_effect(config)
    with threads_of(folder):
        return _federate(grid, config, folder, progress, resume)


def _federate(grid: Grid, config: Config, folder: RunFolder, progress: Progress, resume: bool) -> dict[str, Any]:
    accelerator = pick_accelerator(config.run.accelerator)
    if resume:
        config = _with_saved_strides(config, folder)
    saved = load_federation(folder.checkpoint_folder, config) if resume else None
    if resume and saved is None:
        _require_no_rounds(folder)
    if resume:
        folder.truncate_after(saved.state.round if saved else -1)
    run = Run(config, folder, load_reference(config), accelerator, progress)
    record_facts(run)
    half = server_half(config)
    half.check(config, run.reference.base, {})
    fleet = Path(config.fleet.fleet)
    if is_fleet_file(config.fleet.fleet) and fleet.is_file() and not folder.fleet_path.exists():
        folder.keep_fleet_file(fleet)
    if resume:
        folder.write_config(config.to_mapping())  # which may go on for more rounds than it began with
    settings = config.federation
    seconds = dict(saved.state.stage_seconds) if saved else {}
    greeter = Greeter(grid, settings.handshake_timeout, progress)
    with _stage("handshake", folder, seconds):
        reported = handshake(greeter, config.fleet.devices, settings.handshake_timeout, progress)
    run = _with_strides_for(run, [one.budget for one in reported])
    config, method = run.config, half(run)
    if saved is None:
        state = FederationState()
        with _stage("search", folder, seconds):
            method.prepare(reported)
        state.method_seconds = seconds["search"]
        state.budgets = {one.name: one.budget for one in reported}
    else:
        state = saved.state
        method.restore(saved.cohorts, saved.method)
        for one in reported:
            reassign(one, method, state, run)
    state.stage_seconds = seconds
    sort_devices(method, reported)
    write_budgets(folder, method, reported)
    rounds = Rounds(grid, greeter, method, state, {one.name: one for one in reported}, run)
    before = seconds.get("rounds", 0.0)
    if saved is None:
        rounds.start()
    rounds.run()
    _record_stage("rounds", folder, seconds.get("rounds", 0.0) - before)
    save_models(method, run)
    summary = {**summarise(method, state, config, folder), **closing_facts(method, run)}
    folder.write_summary(summary)
    return summary


def _with_saved_strides(config: Config, folder: RunFolder) -> Config:
    """`config`, whose strides may still say auto, with those that the run in the folder has chosen."""
    if is_chosen(config.model) or not folder.config_path.exists():
        return config
    saved = ModelSettings.picked_from(folder.read_config())
    return config.changed({"stem-stride": saved.stem_stride, "strides": saved.strides})


def _with_strides_for(run: Run, budgets: Sequence[DeviceBudget]) -> Run:
    """The run with strides for these budgets, if they were still to be chosen, which its config.toml then says too."""
    if is_chosen(run.config.model) or not contract_of(run.config.method.method).reads_setting("strides"):
        return run
    old = run.reference.base
    space = SearchSpace.of(run.config.search)
    model = with_strides(run.config.model, old.input_shape, old.classes, budgets, space)
    config = replace(run.config, model=model)
    run.folder.write_config(config.to_mapping())
    base = base_of(model, old.input_shape, old.classes)
    return replace(run, config=config, reference=replace(run.reference, base=base))


def _require_no_rounds(folder: RunFolder) -> None:
    """Raise CheckpointError if rounds were made but their checkpoint is gone: starting anew would forget them."""
    made = max((event["round"] for event in folder.events("round")), default=0)
    if made or folder.summary_path.exists():
        raise CheckpointError(
            f"{folder.checkpoint_folder / 'latest'} is missing, though {made} rounds were made: put it back, or start "
            "a new run in another folder"
        )


def summarise(method: Method, state: FederationState, config: Config, folder: RunFolder) -> dict[str, Any]:
    """The result of a run, ready for summary.json; accuracies are those of the last evaluation.

    `test_accuracy` is the mean over devices of the test accuracy of their cohort's model, `own_accuracy` that of what
    they scored on images of their own (None where none holds any out), `own_devices` of them on `own_images` in all;
    `devices` has both of each device, there of the network that runs on it. `outcomes` counts what became of devices
    over all rounds; one that was refused before the first counts as rejected once. `over_budget` is the number of a
    cohort's devices that could not hold its network, which only fedavg's oracle has. What the run cost is said in the
    same terms for every method (see `_costs`); `traffic` has what each step cost, `milestones` what had been spent when
    an accuracy was first reached.
    """
    scores = own_scores(folder.events(OWN_EVENT), state.round)
    profiles = {entry.name: entry.profile for entry in folder.read_budgets()}
    small = on_devices(folder.events("round"), state.round)
    return {
        "method": method.contract.name,
        "data": config.data.data,
        "seed": config.run.seed,
        "rounds": state.round,
        "stopped_early": state.stopped_early,
        "test_accuracy": mean_over_devices(method.cohorts, "accuracy"),
        **_own_figures(scores),
        "outcomes": _outcomes(folder),
        "cohorts": [_cohort_summary(cohort, state, scores) for cohort in method.cohorts],
        "devices": _device_results(method.cohorts, profiles, scores, small),
        **_costs(method, state),
        "milestones": milestones(_progress(method, folder)),
        "traffic": {step: asdict(_spent(method.cohorts, step)) for step in _steps(method.cohorts)},
        "seconds_total": sum(state.stage_seconds.values()),
        "stages": dict(state.stage_seconds),
        "peak_rss_bytes": max(state.peak_rss_bytes, peak_rss_bytes()),
    }


def _costs(method: Method, state: FederationState) -> dict[str, Any]:
    """What the run has cost so far.

    `device_macs_per_round` is the mean over devices and rounds of the multiply-accumulates of a device whose answer
    counted, all passes over all its images; bytes are all messages', `simulated_seconds` how long the rounds would have
    taken on real devices, `server_seconds` what the method itself took on
    the server, search or pretraining included and waiting left out, `server_bytes` the most it held between rounds.
    """
    spent = [_spent(method.cohorts, step) for step in _steps(method.cohorts)]
    return {
        "device_macs_per_round": _macs_per_answer(method.cohorts),
        "bytes_down": sum(one.bytes_down for one in spent),
        "bytes_up": sum(one.bytes_up for one in spent),
        "simulated_seconds": state.simulated_seconds,
        "server_seconds": state.method_seconds,
        "server_bytes": state.method_bytes,
        "epochs_on_reference": method.epochs_on_reference(state.round),
    }


def _progress(method: Method, folder: RunFolder) -> tuple[Point, ...]:
    devices = {cohort.name: len(cohort.devices) for cohort in method.cohorts if cohort.devices}
    return progress_of(folder.events("step"), folder.events("evaluation"), devices)


def _steps(cohorts: Sequence[Cohort]) -> list[str]:
    return sorted({step for cohort in cohorts for step in cohort.spent})


def _spent(cohorts: Sequence[Cohort], step: str) -> Spent:
    """What one step cost all cohorts."""
    found = [cohort.spent[step] for cohort in cohorts if step in cohort.spent]
    return Spent(*(sum(getattr(one, field.name) for one in found) for field in fields(Spent)))


def _macs_per_answer(cohorts: Sequence[Cohort]) -> float:
    """Mean multiply-accumulates of a device in a round, over what was asked of devices beside evaluation."""
    spent = [one for cohort in cohorts for step, one in cohort.spent.items() if step != EVALUATE]
    answers = sum(one.answers for one in spent)
    return sum(one.device_macs for one in spent) / answers if answers else 0.0


def _outcomes(folder: RunFolder) -> dict[str, int]:
    counts = Counter(event["status"] for event in folder.events("device"))
    return {status: counts[status] for status in ("trained", "late", "failed", "rejected")}


def _own_figures(scores: Mapping[str, OwnScore]) -> dict[str, Any]:
    return {
        "own_accuracy": mean_own(scores.values()) if scores else None,
        "own_devices": len(scores),
        "own_images": sum(score.images for score in scores.values()),
    }


def _device_results(
    cohorts: Sequence[Cohort],
    profiles: Mapping[str, str],
    scores: Mapping[str, OwnScore],
    on_device: Mapping[str, float],
) -> dict[str, dict[str, Any]]:
    """By device: who it is, and its network's accuracy on the test images and on so many of its own, if there are."""
    found = {}
    for cohort in cohorts:
        whole = cohort.evaluation.accuracy if cohort.evaluation else None
        for name in cohort.devices:
            own = scores.get(name)
            found[name] = {
                "cohort": cohort.name,
                "profile": profiles.get(name, ""),
                "test_accuracy": on_device.get(cohort.name, whole),
                "own_accuracy": own.accuracy if own else None,
                "own_images": own.images if own else 0,
            }
    return found


def _cohort_summary(cohort: Cohort, state: FederationState, scores: Mapping[str, OwnScore]) -> dict[str, Any]:
    costs = cohort.network.costs
    evaluation = cohort.evaluation
    spent = cohort.spent.values()
    return {
        "cohort": cohort.name,
        "devices": len(cohort.devices),
        "over_budget": sum(not state.budgets[name].admits(costs) for name in cohort.devices),
        "macs": costs.macs,
        "params": costs.params,
        "peak_memory_bytes": costs.peak_memory_bytes,
        "test_accuracy": evaluation.accuracy if evaluation else None,
        "validation_accuracy": evaluation.validation_accuracy if evaluation else None,
        **_own_figures({name: scores[name] for name in cohort.devices if name in scores}),
        "device_macs_per_round": _macs_per_answer([cohort]),
        "bytes_down": sum(one.bytes_down for one in spent),
        "bytes_up": sum(one.bytes_up for one in spent),
    }


def save_models(method: Method, run: Run) -> None:
    """Write the models that the method keeps of every cohort, with what is needed to use them."""
    for one in chain.from_iterable(map(method.models, method.cohorts)):
        facts = metadata(one.name, "federated", require_architecture(one.network, one.name), run.reference.preparation)
        run.folder.save_model(one.name, one.module.state_dict(), facts)


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
