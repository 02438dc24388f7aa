"""A whole federated run in four stages: handshake, search, rounds, summary."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from flwr.serverapp import Grid

from common.budget import DeviceBudget
from common.config import Config
from common.effects import require_effect
from common.errors import CheckpointError
from common.fleet import is_fleet_file
from common.learning import pick_accelerator
from common.methods import contract_of
from common.progress import Progress
from common.search_space import SearchSpace
from dac.model_file import metadata
from dac.strides import base_of, is_chosen, with_strides
from server.checkpoint import load_federation
from server.cohorts import FederationState, require_architecture
from server.devices import Device
from server.earlier_result import set_result_aside
from server.handshake import Greeter, handshake
from server.membership import reassign, sort_devices, write_budgets
from server.methods import server_half
from server.methods.method import Method
from server.reference import load_reference
from server.resumed_settings import require_same_settings, with_saved_strides
from server.rounds import Rounds
from server.run import Run
from server.run_facts import closing_facts, record_facts
from server.run_folder import RunFolder
from server.stages import STAGE_EVENT, record_stage, seconds_by_stage, timed
from server.summary import summarise
from server.threads import threads_of


def federate(grid: Grid, config: Config, folder: RunFolder, progress: Progress, resume: bool) -> dict[str, Any]:
    """Run the federation that `config` describes, keep everything in `folder`, and return its summary.

    With `resume` the run in `folder` goes on where its checkpoint, or its unfinished search, left it, and ends with the
    weights an uninterrupted run would have. An unfinished search goes on for the devices that it began for; who has
    come, gone or changed since is placed when it is over, as between rounds. Raises FederationError if no device
    answers or every reply is rejected three rounds in a row, BudgetError if no architecture fits any device,
    CheckpointError if there is nothing sound to resume from, and DataError or ConfigurationError for settings that
    cannot work.
    """
    if not resume:
        require_effect(config)
    with threads_of(folder):
        return _federate(grid, config, folder, progress, resume)


def _federate(grid: Grid, config: Config, folder: RunFolder, progress: Progress, resume: bool) -> dict[str, Any]:
    accelerator = pick_accelerator(config.run.accelerator)
    if resume:
        config = with_saved_strides(config, folder)
    saved = load_federation(folder.checkpoint_folder, config) if resume else None
    if resume and saved is None:
        _require_no_rounds(folder)
    begun_for = [] if saved else _begun_for(folder, config)
    if resume:
        folder.truncate_after(saved.state.round if saved else -1)
    run = Run(config, folder, load_reference(config), accelerator, progress)
    record_facts(run)
    half = server_half(config)
    half.check(config, run.reference.base, {}, begun=saved is not None)
    fleet = Path(config.fleet.fleet)
    if is_fleet_file(config.fleet.fleet) and fleet.is_file() and not folder.fleet_path.exists():
        folder.keep_fleet_file(fleet)
    if saved and saved.state.round < config.federation.rounds and not saved.state.stopped_early:
        set_result_aside(folder, saved.state.round)
    if resume:
        folder.write_config(config.to_mapping())  # which may go on for more rounds than it began with
    settings = config.federation
    seconds = dict(saved.state.stage_seconds) if saved else seconds_by_stage(folder.events(STAGE_EVENT))
    names = run.reference.class_names
    greeter = Greeter(grid, settings.handshake_timeout, progress, settings.local_training, names)
    with timed("handshake", folder, seconds):
        reported = handshake(greeter, config.fleet.devices, settings.handshake_timeout, progress)
    served = begun_for or reported
    run = _with_strides_for(run, [one.budget for one in served])
    config, method = run.config, half(run)
    if saved is None:
        write_budgets(folder, method, served)
        state = FederationState()
        with timed("search", folder, seconds):
            method.prepare(served)
        state.method_seconds = seconds["search"]
        state.budgets = {one.name: one.budget for one in served}
    else:
        state = saved.state
        method.restore(saved.cohorts, saved.method)
    state.stage_seconds = seconds
    rounds = Rounds(grid, greeter, method, state, {one.name: one for one in reported}, run)
    before = seconds.get("rounds", 0.0)
    if saved is None:
        rounds.start()
    for one in reported:
        reassign(one, method, state, run)
    sort_devices(method, reported)
    write_budgets(folder, method, reported)  # not before a checkpoint: until then it says for whom the search is
    rounds.run()
    record_stage("rounds", folder, seconds.get("rounds", 0.0) - before)
    save_models(method, run)
    summary = {**summarise(method, state, config, folder), **closing_facts(method, run)}
    folder.write_summary(summary)
    return summary


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


def _begun_for(folder: RunFolder, config: Config) -> list[Device]:
    """The devices that an unfinished search or pretraining is for, as they reported then; none if there is nothing.

    Raises CheckpointError for settings that are not those it began with, and for a damaged budgets.json.
    """
    if not any(folder.checkpoint_folder.glob("*.safetensors")):
        return []
    require_same_settings(folder.read_config(), config.to_mapping())
    return [Device.of(entry) for entry in folder.read_budgets()]


def save_models(method: Method, run: Run) -> None:
    """Write the models that the method keeps of every cohort, with what is needed to use them."""
    for one in chain.from_iterable(map(method.models, method.cohorts)):
        facts = metadata(one.name, "federated", require_architecture(one.network, one.name), run.reference.preparation)
        run.folder.save_model(one.name, one.module.state_dict(), facts)
