"""HeteroFL: nested slices of one network, each the largest that its budget admits, averaged where they overlap."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from client.app import app as real_client_app
from common.architecture import Architecture
from common.budget import USUAL_TRAINING, DeviceBudget
from common.config import Config
from common.errors import BudgetError
from common.groups import TrainSettings
from common.learning import place, recalibrate
from common.messages import Task
from common.methods.heterofl import ScaledOrder
from common.models import allow_network
from common.models.description import BaseNetwork
from common.rates import COUNTED, KINDS, LatencyBound
from common.slicing import slice_state
from dac.recipe import fine_tuning
from dac.train import Trained, train_architecture
from server.cohorts import Cohort
from server.devices import Device
from server.methods.averaged import Averaged
from server.methods.heterofl import rate_of
from server.methods.pretraining import random_state
from server.methods.slices import common_slice, largest_slice, reducible, slice_at, smallest_costs
from server.reference import load_reference
from server.report.build import build_report
from server.run_folder import RunFolder
from tests.examples import examples, slow
from tests.server.helpers import TWO_BUDGETS, Crash, architecture_of, find_cohorts, models

MLP = BaseNetwork("mlp", (1, 8, 8), 10)
CNN = BaseNetwork("cnn", (1, 8, 8), 10)
MOBILENET = BaseNetwork("mobilenet_v2", (3, 32, 32), 10)


@pytest.fixture
def config(small_config: Callable[..., Config], tmp_path: Path) -> Config:
    (tmp_path / "fleet.toml").write_text(TWO_BUDGETS)
    return small_config(method="heterofl", pretraining_epochs=2, fleet=str(tmp_path / "fleet.toml"), max_params="")


def test_a_slice_keeps_the_first_channels_of_every_layer_rounded_up() -> None:
    half = slice_at(MOBILENET, Fraction(1, 2))
    assert half.indices["input"] == (0, 1, 2)
    assert half.indices["stem"] == tuple(range(16))
    assert half.indices["head"] == tuple(range(640))
    assert half.sizes["stage1"] == 8
    assert half.sizes["block1.inner"] == 48
    assert slice_at(MOBILENET, Fraction(1, 3)).sizes["stem"] == 11
    assert half.sizes["classes"] == 10
    assert half.base == MOBILENET


def test_groups_that_a_search_may_reduce_keep_its_floor() -> None:
    sizes = slice_at(CNN, Fraction(1, 4)).sizes
    assert [sizes[name] for name in ("conv1", "conv2", "hidden1", "hidden2")] == [6, 8, 30, 21]


def test_the_rate_of_a_slice_is_the_mean_share_of_channels() -> None:
    assert rate_of(slice_at(CNN, Fraction(1, 4))) == pytest.approx((6 / 6 + 8 / 16 + 30 / 120 + 21 / 84) / 4)
    assert rate_of(Architecture.full(CNN)) == 1


def test_the_slice_of_a_budget_by_hand() -> None:
    # 64 pixels, h hidden units, 10 classes: 65 h + 10 (h + 1) parameters
    assert largest_slice(MLP, DeviceBudget(params=6000)).sizes["hidden"] == 79
    assert largest_slice(MLP, DeviceBudget(params=75 * 80 + 10)).sizes["hidden"] == 79
    assert largest_slice(MLP, DeviceBudget(params=75 * 80 + 11)).sizes["hidden"] == 80
    assert largest_slice(MLP, DeviceBudget()) == Architecture.full(MLP)


def test_a_network_that_cannot_be_reduced_has_one_slice() -> None:
    model = "tests.common.models.users:irreducible"
    allow_network(model)
    whole = Architecture.full(BaseNetwork(model, (1, 8, 8), 4))
    assert largest_slice(whole.base, DeviceBudget()) == whole
    with pytest.raises(BudgetError, match="no slice fits"):
        largest_slice(whole.base, DeviceBudget(macs=1))


def test_a_budget_below_the_smallest_slice_is_refused_with_its_costs() -> None:
    with pytest.raises(BudgetError, match=r"the smallest of mlp for \(1, 8, 8\) needs .* 610 parameters"):
        largest_slice(MLP, DeviceBudget(params=610))


@given(
    base=st.sampled_from([CNN, MOBILENET]),
    shares=st.tuples(*[st.none() | st.floats(0, 1.1) for _ in range(3)]),
)
@settings(max_examples=examples(25), deadline=None)
def test_the_budget_is_met_and_the_next_larger_slice_breaks_it(
    base: BaseNetwork, shares: tuple[float | None, ...]
) -> None:
    low, full = smallest_costs(base), Architecture.full(base).costs
    bounds = [
        None if share is None else low.get(what) + 1 + int(share * (full.get(what) - low.get(what)))
        for what, share in zip(("macs", "params", "peak_memory_bytes"), shares, strict=True)
    ]
    budget = DeviceBudget(*bounds)
    chosen = largest_slice(base, budget)
    assert budget.admits(chosen.costs)
    if chosen == Architecture.full(base):
        return
    assert not budget.admits(next_larger(chosen).costs)


def next_larger(chosen: Architecture) -> Architecture:
    """The slice at the smallest rate above, at which some group gains a channel."""
    groups, base = reducible(chosen.base), chosen.base
    rate = min(Fraction(chosen.sizes[g.name], g.size) for g in groups if chosen.sizes[g.name] < g.size)
    rates = sorted({Fraction(kept, g.size) for g in groups for kept in range(1, g.size + 1)})
    return next(one for one in (slice_at(base, r) for r in rates if r > rate) if one != chosen)


some_shares = st.floats(0.01, 1.2).map(lambda share: share if share < 1 else None)


@given(
    base=st.sampled_from([MLP, CNN, MOBILENET]),
    devices=st.lists(st.tuples(some_shares, some_shares, some_shares, st.sampled_from(KINDS)), min_size=1, max_size=4),
)
@settings(max_examples=examples(60), deadline=None)
def test_all_devices_can_hold_the_common_slice_and_not_all_the_next_larger_one(
    base: BaseNetwork, devices: list[tuple[float | None, float | None, float | None, str]]
) -> None:
    """Devices that bound MACs, memory while they train and time, each slow in work of another kind."""
    low, full = smallest_costs(base), Architecture.full(base).costs
    smallest, largest = low.training_memory_bytes(USUAL_TRAINING), full.training_memory_bytes(USUAL_TRAINING)
    budgets = []
    for macs, memory, time, kind in devices:
        shares = [
            0.3 / units if units and kind == one else 1e-9 for units, (one, _) in zip(low.work(), COUNTED, strict=True)
        ]
        bounds = {
            "macs": None if macs is None else low.macs + 1 + int(macs * (full.macs - low.macs)),
            "training_memory_bytes": None if memory is None else smallest + 1 + int(memory * (largest - smallest)),
            "latency": None if time is None else LatencyBound(20.0, tuple(time * share for share in shares)),
        }
        budgets.append(DeviceBudget(**bounds))
    chosen = common_slice(base, budgets)
    assert all(budget.admits(chosen.costs) for budget in budgets)
    if chosen != Architecture.full(base):
        assert not all(budget.admits(next_larger(chosen).costs) for budget in budgets)


@given(st.lists(st.fractions(Fraction(1, 1000), 1), min_size=2, max_size=6))
@settings(max_examples=examples(25), deadline=None)
def test_slices_are_nested(rates: list[Fraction]) -> None:
    slices = [slice_at(MOBILENET, rate) for rate in sorted(rates)]
    assert all(larger.contains(smaller) for smaller, larger in pairwise(slices))


def test_cohorts_are_slices_of_one_trained_network(
    config: Config, run_folder: RunFolder, make_device: Callable[..., Device]
) -> None:
    config = replace(config, search=replace(config.search, fine_tune_epochs=0))
    devices = [make_device("a", params=6000), make_device("b", params=12000), make_device("c", params=20)]
    cohorts = find_cohorts(devices, config, run_folder)
    assert [architecture_of(cohort).sizes["hidden"] for cohort in cohorts] == [159, 79]
    assert [cohort.devices for cohort in cohorts] == [["b"], ["a"]]
    large, small = (cohort.network for cohort in cohorts)
    state = slice_state(large.layout.unflatten(cohorts[0].weights), large, small)
    assert small.layout.flatten(state).tobytes() == cohorts[1].weights.tobytes()
    untrained = large.layout.flatten(random_state(large, 0))
    assert untrained.tobytes() != cohorts[0].weights.tobytes()
    assert [event["epoch"] for event in run_folder.events("pretraining")] == [1, 2]
    (refused,) = run_folder.events("device")
    assert (refused["device"], refused["status"], refused["round"]) == ("c", "rejected", 0)


def test_slices_are_fine_tuned_as_long_as_architectures_of_the_search(
    config: Config, run_folder: RunFolder, make_device: Callable[..., Device]
) -> None:
    devices = [make_device("a", params=6000), make_device("b")]
    starts = []
    for epochs in (0, 2):
        changed = replace(config, search=replace(config.search, fine_tune_epochs=epochs))
        starts.append(find_cohorts(devices, changed, run_folder))
    (whole, small), (tuned_whole, tuned_small) = starts
    assert tuned_whole.weights.tobytes() == whole.weights.tobytes()
    assert tuned_small.weights.tobytes() != small.weights.tobytes()
    assert tuned_small.search_accuracy > small.search_accuracy


def test_slices_are_fine_tuned_just_as_what_the_search_finds(
    config: Config, run_folder: RunFolder, make_device: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainSettings] = []

    def watched(*arguments: Any, **keywords: Any) -> Trained:
        seen.append(arguments[4])
        return train_architecture(*arguments, **keywords)

    monkeypatch.setattr("server.methods.pretraining.train_architecture", watched)
    changed = replace(config, search=replace(config.search, fine_tune_epochs=1, joint_epochs=0))
    find_cohorts([make_device("a", params=6000), make_device("b")], changed, run_folder)
    whole, small = seen
    assert small == fine_tuning(changed.search)
    assert whole.epochs == 2


@pytest.mark.parametrize("joint_epochs", [0, 1])
def test_slices_start_with_one_value_per_shared_weight_only_after_joint_training(
    config: Config,
    run_folder: RunFolder,
    make_device: Callable[..., Device],
    make_method: Callable[..., Averaged],
    joint_epochs: int,
) -> None:
    changed = replace(config, search=replace(config.search, fine_tune_epochs=1, joint_epochs=joint_epochs))
    devices = [make_device("a", params=6000), make_device("b", params=12000)]
    cohorts = find_cohorts(devices, changed, run_folder)
    large, small = (cohort.network for cohort in cohorts)
    shared = slice_state(large.layout.unflatten(cohorts[0].weights), large, small)
    agree = small.layout.flatten(shared).tobytes() == cohorts[1].weights.tobytes()
    assert agree == (joint_epochs > 0)
    method = make_method(cohorts, changed)
    # pretraining, fine-tuning of the slices, joint training; then two rounds of distillation
    assert method.epochs_on_reference(0) == 2 + 1 + joint_epochs
    distilled = make_method(cohorts, changed.changed({"distillation-epochs": 3}))
    assert distilled.epochs_on_reference(2) == 2 + 1 + joint_epochs + 6


def test_batch_norms_of_a_slice_are_measured_anew(
    small_config: Callable[..., Config], run_folder: RunFolder, make_device: Callable[..., Device]
) -> None:
    config = small_config(
        method="heterofl",
        model="mobilenet_v2",
        width=0.25,
        stem_stride=2,
        train_images=200,
        pretraining_epochs=1,
        max_params="",
    )
    reference = load_reference(config)
    half = slice_at(reference.base, Fraction(1, 2)).costs.params
    cpu = torch.device("cpu")
    (cohort,) = find_cohorts([make_device(params=half)], config, run_folder)
    module = cohort.network.build(0)
    module.load_state_dict(cohort.network.layout.unflatten(cohort.weights), strict=False)
    before = {name: value.clone() for name, value in module.state_dict().items() if "running" in name}
    recalibrate(place(module, cpu), replace(reference.train, batch_size=config.federation.test_batch_size), cpu)
    for name, value in before.items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_random_weights_are_slices_of_one_network_too(
    small_config: Callable[..., Config], run_folder: RunFolder, make_device: Callable[..., Device]
) -> None:
    config = small_config(method="heterofl", initial_weights="random", max_params="")
    devices = [make_device("a", params=6000), make_device("b", params=12000)]
    cohorts = find_cohorts(devices, config, run_folder)
    for cohort in cohorts:
        expected = cohort.network.layout.flatten(random_state(cohort.network, 0))
        assert cohort.weights.tobytes() == expected.tobytes()
    assert run_folder.events("pretraining") == []


def test_near_budgets_share_a_slice(config: Config, run_folder: RunFolder, make_device: Callable[..., Device]) -> None:
    merging = Config.from_mapping({**config.to_mapping(), "max-cohorts": 1})
    devices = [make_device("a", params=6000), make_device("b", params=12000)]
    cohorts = find_cohorts(devices, merging, run_folder)
    assert [(architecture_of(cohort).sizes["hidden"], cohort.devices) for cohort in cohorts] == [(79, ["a", "b"])]


def test_it_implies_overlap_recalibration_and_the_scaler(
    small_config: Callable[..., Config], make_method: Callable[..., Averaged], make_device: Callable[..., Device]
) -> None:
    quarter = slice_at(MLP, Fraction(1, 4))
    weights = quarter.layout.flatten(quarter.build(0).state_dict())
    cohort, device = Cohort("cohort-0", quarter, weights, 0.5, []), make_device()

    def method(**settings: Any) -> Averaged:
        return make_method([cohort], small_config(**settings))

    assert (method(method="heterofl").aggregation, method(method="heterofl").recalibrates) == ("overlap-weights", True)
    assert (method(method="dac").aggregation, method(method="dac").recalibrates) == ("cohort", False)
    assert method(aggregation="overlap").aggregation == "overlap"
    assert method(aggregation="overlap-weights").aggregation == "overlap-weights"
    assert method(batch_norm="recalibrate").recalibrates
    order = method(method="heterofl").order(cohort, device, 1)
    assert isinstance(order, ScaledOrder)
    assert order.activation_scale == 0.25
    frozen = method(method="heterofl", batch_norm="frozen").order(cohort, device, 1)
    assert isinstance(frozen, ScaledOrder)
    assert frozen.activation_scale == 1.0, "statistics of unscaled outputs do not fit scaled ones"


def test_a_run_ends_with_cohorts_that_agree_where_they_overlap(
    config: Config, run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    summary = run_federation(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert (summary["method"], summary["epochs_on_reference"]) == ("heterofl", 3)
    assert [entry["devices"] for entry in summary["cohorts"]] == [1, 2]
    assert [entry["over_budget"] for entry in summary["cohorts"]] == [0, 0]
    assert summary["outcomes"] == {"trained": 6, "late": 0, "failed": 0, "rejected": 0}
    assert summary["test_accuracy"] > 0.4
    large, small = (
        Architecture.from_json(folder.architecture_path(name).read_text()) for name in ("cohort-0", "cohort-1")
    )
    shared = slice_state(folder.load_model("cohort-0"), large, small)
    own = folder.load_model("cohort-1")
    assert all(torch.equal(shared[name], own[name]) for name in own)
    assert "cohort-1" in build_report(folder.path).read_text()


@pytest.mark.parametrize(("method", "scales"), [("heterofl", {79 / 200, 159 / 200}), ("dac", {None})])
def test_devices_are_told_the_rate_of_their_slice(
    method: str,
    scales: set[float | None],
    config: Config,
    small_config: Callable[..., Config],
    run_federation: Callable[..., Any],
    tmp_path: Path,
) -> None:
    app, told = ClientApp(), set()

    @app.query("handshake")
    def handshake(message: Message, context: Context) -> Message:
        return real_client_app(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        told.add(Task.decode(message.content, Architecture).order.get("activation-scale"))
        return real_client_app(message, context)

    if method == "heterofl":
        changed = config.changed({"rounds": 1, "pretraining-epochs": 0, "fine-tune-epochs": 3})  # as by default
    else:
        changed = small_config(fleet=config.fleet.fleet, max_params="", rounds=1)
    run_federation(changed, tmp_path / "run", client_app=app)
    assert told == scales


@pytest.mark.parametrize("instant", [5, 12, *slow(6, 7, 9)])
def test_a_run_killed_while_pretraining_or_later_resumes_to_the_same_weights(
    instant: int, config: Config, run_federation: Callable[..., Any], tmp_path: Path
) -> None:
    run_federation(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_federation(config, tmp_path / "cut", progress=Crash(instant))
    run_federation(config, tmp_path / "cut", resume=True)
    assert models(tmp_path / "cut") == models(tmp_path / "whole")
    for event in ("pretraining", "architecture", "evaluation"):
        assert RunFolder(tmp_path / "cut").events(event) == RunFolder(tmp_path / "whole").events(event)
