"""FedGKT's server half: who takes part, what its network learns from, what it answers, and what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.arrays import Arrays
from common.config import Config
from common.errors import BudgetError, ConfigurationError
from common.knowledge import taught
from common.learning import evaluate, place
from common.messages import WEIGHTS, Result
from common.methods.fedgkt import FEATURES, IDS, LABELS, LOGITS, TransferOrder, epochs_in
from common.models.bottleneck import BottleneckResNet
from common.optimizers import make_optimizer
from dac.files import load_member
from dac.model_file import read_model
from server.cohorts import Cohort, FederationState
from server.devices import Device
from server.federation import save_models
from server.methods.fedgkt import FedGKTServer
from server.methods.method import Snapshot
from server.run import Run
from server.strategy import MethodStrategy
from tests.examples import examples

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "method": "fedgkt",
    "fedgkt_server": "resnet11",
    "fedgkt_server_epochs": "1",
    "fedgkt_server_batch_size": 8,
    "pretraining_epochs": 0,
    "train_images": 120,
    "test_images": 20,
}
ROWS = 12
Start = Callable[..., FedGKTServer]


@pytest.fixture
def start(make_run: Callable[..., Run], small_config: Callable[..., Config], make_device: Any) -> Start:
    """A method whose devices a and b are in cohort-0 and cohort-1."""

    def begin(**changes: Any) -> FedGKTServer:
        method = FedGKTServer(make_run(small_config(**{**SETTINGS, **changes})))
        method.prepare([make_device("a", 0, ROWS), make_device("b", 1, ROWS)])
        return method

    return begin


def pair_of(method: FedGKTServer, cohort: Cohort) -> BottleneckResNet:
    """What is scored."""
    scored = method.module(cohort)
    assert isinstance(scored, BottleneckResNet)
    return scored


def told(method: FedGKTServer, number: int, rows: int = ROWS, ids: list[int] | None = None) -> dict[str, Any]:
    """What a device might say of its images, in the order of `ids`."""
    generator = np.random.default_rng(number)
    arrays = {
        IDS: np.arange(rows, dtype="<i4"),
        FEATURES: generator.uniform(0, 2, (rows, 16, 8, 8)).astype("<f4"),
        LOGITS: generator.normal(size=(rows, 10)).astype("<f4") * 3,
        LABELS: generator.integers(0, 10, rows).astype("<i4"),
    }
    return {name: values if ids is None else values[ids] for name, values in arrays.items()}


def answer(method: FedGKTServer, device: Device, arrays: Arrays, number: int = 1) -> None:
    step = next(one for one in method.steps(number) if device.name in one.cohort.devices)
    fold(method, step, device, arrays)


def fold(method: FedGKTServer, step: Any, device: Device, arrays: Arrays) -> None:
    sent = {WEIGHTS: step.cohort.weights, **arrays}
    method.fold(step, device, Result("fedgkt", step.name, 1, ROWS, 0.5, 0.1, 1, sent))


def round_of(method: FedGKTServer, devices: list[Device], number: int = 1, **how: Any) -> list[dict[str, Any]]:
    """Both devices answer; returns what they said."""
    said = []
    for position, (step, device) in enumerate(zip(method.steps(number), devices, strict=True)):
        said.append(told(method, 10 * number + position, **how))
        fold(method, step, device, said[-1])
    method.finish(number)
    return said


@pytest.fixture
def ready(start: Start) -> FedGKTServer:
    """One for all generated examples of a test."""
    return start()


@pytest.fixture
def devices(make_device: Any) -> list[Device]:
    return [make_device("a", 0, ROWS), make_device("b", 1, ROWS)]


def server_weights(method: FedGKTServer) -> bytes:
    return method.snapshot().arrays["server"].tobytes()


def test_devices_that_cannot_hold_the_small_network_are_refused_by_name(
    make_run: Callable[..., Run], small_config: Callable[..., Config], make_device: Any
) -> None:
    run = make_run(small_config(**SETTINGS))
    method = FedGKTServer(run)
    method.prepare([make_device("weak", 0, params=10_000), make_device("fit", 1, params=20_000)])
    assert [cohort.devices for cohort in method.cohorts] == [["fit"]]
    (refused,) = run.folder.events("device")
    assert (refused["device"], refused["status"]) == ("weak", "rejected")
    assert "cannot hold fedgkt's small network, which needs" in refused["reason"]
    with pytest.raises(BudgetError, match="10,298 parameters"):
        FedGKTServer(run).prepare([make_device("weak", 0, params=10_000)])


def test_every_device_has_weights_of_its_own_and_comes_back_to_them(start: Start, make_device: Any) -> None:
    method = start()
    assert [cohort.devices for cohort in method.cohorts] == [["a"], ["b"]]
    assert np.array_equal(method.cohorts[0].weights, method.cohorts[1].weights)
    assert method.place(make_device("b", 1, ROWS)) is method.cohorts[1]
    assert method.place(make_device("b", 1, ROWS, params=100)) is None
    method.cohorts[1].devices.remove("b")
    assert method.place(make_device("b", 1, ROWS)) is method.cohorts[1]
    late = method.place(make_device("late", 2, ROWS))
    assert late is method.cohorts[2]
    assert (late.name, late.devices) == ("cohort-2", [])
    again = FedGKTServer(method.run)
    again.restore(method.cohorts, method.snapshot())
    assert again.place(make_device("late", 2, ROWS)) is late


@pytest.mark.parametrize("resumed", [False, True], ids=["same server", "resumed"])
def test_the_architecture_of_a_device_that_comes_late_is_recorded_for_its_first_round(
    resumed: bool, start: Start, devices: list[Device], make_device: Any
) -> None:
    method = start()
    round_of(method, devices)
    if resumed:
        saved, cohorts, method = method.snapshot(), method.cohorts, FedGKTServer(method.run)
        method.restore(cohorts, saved)
    for _ in range(2):
        method.place(make_device("late", 2, ROWS))
    events = method.run.folder.events("architecture")
    assert [(one["cohort"], one["round"]) for one in events] == [("cohort-0", 0), ("cohort-1", 0), ("cohort-2", 2)]
    assert {key: events[-1][key] for key in events[0] if key not in ("cohort", "round")} == {
        key: events[0][key] for key in events[0] if key not in ("cohort", "round")
    }
    first, late = (load_member(method.run.folder.architecture_path(name)) for name in ("cohort-0", "cohort-2"))
    assert late.architecture == first.architecture
    assert all(torch.equal(values, first.state[name]) for name, values in late.state.items())


@pytest.mark.parametrize("ids", [None, [7, 3, 11, 0, 1, 2, 4, 5, 6, 8, 9, 10]])
def test_the_server_answers_by_the_id_of_an_image(start: Start, devices: list[Device], ids: list[int] | None) -> None:
    """The published program answered by the number of a batch, and the device had shuffled since."""
    method = start()
    assert all(not step.order(device).arrays for step, device in zip(method.steps(1), devices, strict=True))
    said = round_of(method, devices, ids=ids)
    for step, device, own in zip(method.steps(2), devices, said, strict=True):
        got = step.order(device).arrays
        assert got[IDS].tolist() == own[IDS].tolist()
        module = pair_of(method, step.cohort).eval()
        with torch.no_grad():
            expected = module.classify(torch.from_numpy(own[FEATURES])).numpy()  # type: ignore[operator]
        assert np.allclose(got[LOGITS], expected, atol=1e-4)


def test_the_server_learns_as_the_formulas_say(start: Start, devices: list[Device]) -> None:
    """One batch of all images: cross-entropy plus T^2 KL from the devices' logits, one step of plain SGD."""
    given: dict[str, Any] = {"fedgkt_server_batch_size": 2 * ROWS, "fedgkt_server_optimizer": "sgd", "momentum": 0.0}
    method = start(**given, fedgkt_server_learning_rate=0.1)
    module = pair_of(method, method.cohorts[0]).train()
    parameters = [one for name, one in module.named_parameters() if not name.startswith("stem_")]
    optimizer = make_optimizer("sgd", parameters, 0.1, 0.0, 0.0)
    said = round_of(method, devices)
    features, logits, labels = (np.concatenate([own[name] for own in said]) for name in (FEATURES, LOGITS, LABELS))
    answered = module.classify(torch.from_numpy(features))  # type: ignore[operator]
    known = torch.ones(2 * ROWS, dtype=torch.bool)
    tensors = torch.from_numpy(labels).long(), torch.from_numpy(logits)
    taught(answered, *tensors, known, temperature=3.0, alpha=1.0).objective.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    ours = dict(pair_of(method, method.cohorts[0]).named_parameters())
    for name, expected in module.named_parameters():
        assert torch.allclose(ours[name], expected, atol=1e-5), name


@pytest.mark.parametrize(
    "changes",
    [
        {"fedgkt_server": "resnet29"},
        {"fedgkt_server_epochs": "2"},
        {"fedgkt_server_batch_size": 6},
        {"fedgkt_server_optimizer": "sgd"},
        {"fedgkt_server_optimizer": "adam"},
        {"fedgkt_server_learning_rate": 0.01},
        {"fedgkt_server_distillation": False},
        {"fedgkt_temperature": 1.0},
        {"fedgkt_alpha": 0.5},
        {"weight_decay": 0.1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_its_settings_change_what_the_server_learns(
    changes: dict[str, Any], start: Start, devices: list[Device]
) -> None:
    ends = []
    for one in ({}, changes):
        method = start(**one)
        round_of(method, devices)
        ends.append(server_weights(method))
    assert ends[0] != ends[1]


def test_devices_are_told_the_settings(start: Start, devices: list[Device]) -> None:
    told_to: dict[str, Any] = {
        "fedgkt_temperature": 2.0,
        "fedgkt_alpha": 0.25,
        "fedgkt_feature_type": "float16",
        "fedgkt_feature_clip": 4.0,
    }
    shared: dict[str, Any] = {"local_epochs": "3", "local_batch_size": 5, "weight_decay": 0.2, "momentum": 0.1}
    method = start(**told_to, **shared, learning_rate=0.3, learning_rate_decay=0.5, optimizer="amsgrad")
    step = method.steps(1)[0]
    order = step.order(devices[0])
    assert isinstance(order.settings, TransferOrder)
    assert {key: getattr(order.settings, key) for key in told_to} == told_to
    assert (order.settings.learning_rate, order.settings.epochs, order.settings.batch_size) == (0.3, 3, 5)
    assert (order.settings.weight_decay, order.settings.momentum, order.settings.optimizer) == (0.2, 0.1, "amsgrad")
    later = method.steps(3)[0].order(devices[0]).settings
    assert isinstance(later, TransferOrder)
    assert later.learning_rate == pytest.approx(0.3 / 4)
    assert (step.reply[FEATURES].dtype, step.reply[FEATURES].high) == ("<f2", 4.0)
    # three epochs of three passes, and one to extract
    assert order.macs_per_sample == 10 * step.cohort.network.costs.macs


@pytest.mark.parametrize("network", ["resnet11", "resnet29", "resnet56", "resnet110"])
def test_every_server_network_trains(network: str, start: Start, devices: list[Device]) -> None:
    """The published program ends with an AttributeError for all but one name (FedML issue 69)."""
    method = start(fedgkt_server=network)
    before = server_weights(method)
    round_of(method, devices, rows=2)
    assert server_weights(method) != before
    assert np.isfinite(method.snapshot().arrays["server"]).all()


def test_what_is_scored_is_the_devices_stem_below_the_servers_network(start: Start, devices: list[Device]) -> None:
    method = start()
    round_of(method, devices)
    first, second = method.cohorts
    second.weights = second.weights + 1
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pair, other = pair_of(method, first).eval(), pair_of(method, second).eval()
    small = first.module(torch.device("cpu")).eval()
    with torch.no_grad():
        assert torch.equal(pair.features(images), small.features(images))  # type: ignore[operator]
        assert not torch.equal(pair.features(images), other.features(images))  # type: ignore[operator]
    rest = {name: values for name, values in pair.state_dict().items() if not name.startswith("stem_")}
    assert all(torch.equal(values, other.state_dict()[name]) for name, values in rest.items())


def test_the_small_network_is_scored_instead_where_that_is_asked_for(start: Start, devices: list[Device]) -> None:
    method, other = start(fedgkt_score="device"), start()
    for one in (method, other):
        round_of(one, devices)
    cohort = method.cohorts[0]
    small, scored = (one.state_dict() for one in (cohort.module(CPU), method.module(cohort)))
    assert all(torch.equal(values, scored[name]) for name, values in small.items())
    test = method.run.reference.test
    assert method.notes(cohort) == {"pair_accuracy": evaluate(other.module(other.cohorts[0]), test, CPU).accuracy}
    assert server_weights(method) == server_weights(other)
    assert sorted(one.name for one in method.models(cohort)) == ["cohort-0", "cohort-0-device"]


@pytest.mark.parametrize("score", ["pair", "device"])
def test_a_pair_is_scored_with_the_features_that_its_server_has_learnt_from(
    start: Start, score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = start(fedgkt_feature_clip=0.25, fedgkt_score=score, evaluate_every=1)
    (cohort, _) = method.cohorts
    seen: list[float] = []
    classify = BottleneckResNet.classify

    def watched(module: BottleneckResNet, features: torch.Tensor) -> torch.Tensor:
        if module.classifier.in_features == 256:  # the server's
            seen.append(float(features.max()))
        return classify(module, features)

    monkeypatch.setattr(BottleneckResNet, "classify", watched)
    if score == "pair":
        evaluate(method.module(cohort), method.run.reference.test, CPU)
    else:
        method.finish(1)
        method.notes(cohort)
    assert seen == [0.25]


def test_the_run_folder_keeps_the_pair_and_what_a_device_takes_home(start: Start) -> None:
    method = start()
    save_models(method, method.run)
    found = {path.stem: read_model(path) for path in method.run.folder.models_folder.iterdir()}
    assert sorted(found) == ["cohort-0", "cohort-0-device", "cohort-1", "cohort-1-device"]
    assert found["cohort-1"].architecture.base.model == "resnet11_bottleneck"
    assert found["cohort-1-device"].architecture.base.model == "resnet8_bottleneck"
    assert found["cohort-1-device"].architecture.costs.params == 10_298


def test_a_pair_is_kept_with_the_cut_that_it_was_scored_with(start: Start) -> None:
    method = start(fedgkt_feature_clip=0.25)
    save_models(method, method.run)
    kept = read_model(method.run.folder.model_path("cohort-0"))
    assert kept.architecture.base.model == "resnet11_bottleneck_clip_0.25"
    module = place(kept.architecture.build_from(kept.state), CPU).eval()
    scored = pair_of(method, method.cohorts[0]).eval()
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert float(scored.features(images).max()) > 0.25
        assert torch.equal(module(images), scored(images))


def test_the_accuracy_of_the_small_network_is_told_in_rounds_that_are_evaluated(
    start: Start, devices: list[Device]
) -> None:
    method = start(evaluate_every=2, rounds=5)
    told_in = []
    for number in (1, 2, 3, 4, 5):
        method.finish(number)
        told_in.append(list(method.notes(method.cohorts[0])))
    assert told_in == [[], ["device_network_accuracy"], [], ["device_network_accuracy"], ["device_network_accuracy"]]


def test_features_lie_in_the_run_folder_until_the_round_is_over(start: Start, devices: list[Device]) -> None:
    """The published program holds those of all devices in memory, and writes into a folder called ~."""
    method = start()
    folder = method.run.folder.path / "features"
    for step, device in zip(method.steps(1), devices, strict=True):
        fold(method, step, device, told(method, 1))
    assert {path.name for path in folder.iterdir()} == {"cohort-0", "cohort-1"}
    assert not any(step.in_order for step in method.steps(1))  # none waits in memory for its turn
    assert not folder.exists()
    round_of(method, devices)
    assert not folder.exists()
    assert set(method.snapshot().arrays) >= {"server", "start", "ids/cohort-0", "logits/cohort-1"}
    assert not any("feature" in name for name in method.snapshot().arrays)


def test_a_round_without_answers_changes_nothing_but_its_number(start: Start, devices: list[Device]) -> None:
    method = start()
    round_of(method, devices)
    before = {name: values.tobytes() for name, values in method.snapshot().arrays.items()}
    method.steps(2)
    method.finish(2)
    assert {name: values.tobytes() for name, values in method.snapshot().arrays.items()} == before


def test_a_device_that_was_silent_is_sent_the_last_answers_to_it(start: Start, devices: list[Device]) -> None:
    method = start()
    round_of(method, devices)
    old = [step.order(device).arrays[LOGITS] for step, device in zip(method.steps(2), devices, strict=True)]
    answer(method, devices[0], told(method, 99), 2)
    method.finish(2)
    new = [step.order(device).arrays[LOGITS] for step, device in zip(method.steps(3), devices, strict=True)]
    assert not np.array_equal(old[0], new[0])
    assert np.array_equal(old[1], new[1])


@pytest.mark.parametrize("resumed", [False, True], ids=["same server", "resumed"])
@pytest.mark.parametrize("samples", [ROWS - 4, ROWS + 4], ids=["fewer", "more"])
def test_a_device_that_has_other_images_now_is_not_sent_answers_to_those_it_had(
    samples: int, resumed: bool, start: Start, devices: list[Device], make_device: Any
) -> None:
    """The ids count the images it has now: a device refuses answers to images beyond them, and is soon left out."""
    method = start()
    round_of(method, devices)
    if resumed:
        saved, method = method.snapshot(), FedGKTServer(method.run)
        method.restore(start().cohorts, saved)
    changed = make_device("a", 0, samples)
    first, second = method.steps(2)
    assert not first.order(changed).arrays
    assert second.order(devices[1]).arrays[IDS].tolist() == list(range(ROWS))
    answer(method, changed, told(method, 99, rows=samples), 2)
    method.finish(2)
    assert method.steps(3)[0].order(changed).arrays[IDS].tolist() == list(range(samples))


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adam", "amsgrad"])
def test_a_restored_server_goes_on_bit_for_bit(kind: str, start: Start, devices: list[Device]) -> None:
    method = start(fedgkt_server_optimizer=kind, momentum=0.9)
    round_of(method, devices, 1)
    saved = method.snapshot()
    saved = Snapshot(dict(saved.facts), {name: values.copy() for name, values in saved.arrays.items()})
    again = FedGKTServer(method.run)
    again.restore(method.cohorts, saved)
    round_of(method, devices, 2)
    round_of(again, devices, 2)
    assert server_weights(again) == server_weights(method)
    kept = [pair_of(one, one.cohorts[0]).state_dict() for one in (method, again)]
    assert all(torch.equal(values, kept[1][name]) for name, values in kept[0].items())  # its counters too


def test_pretraining_gives_both_sides_their_part_of_one_network(start: Start) -> None:
    method = start(pretraining_epochs=1)
    pair = pair_of(method, method.cohorts[0]).state_dict()
    small = method.cohorts[0].module(torch.device("cpu")).state_dict()
    shared = [name for name in small if name in pair and pair[name].shape == small[name].shape]
    assert all(torch.equal(small[name], pair[name]) for name in shared if small[name].is_floating_point())
    assert len(shared) > 30
    assert method.epochs_on_reference(5) == 1
    assert server_weights(method) != server_weights(FedGKTServer(method.run))


def test_the_published_schedules() -> None:
    def resnet56(number: int) -> int:
        """`get_server_epoch_strategy_reset56`, which counts rounds from 0."""
        ends = ((20, 20), (30, 15), (40, 10), (100, 5), (150, 3), (201, 2))
        return next(epochs for end, epochs in ends if number - 1 < end)

    assert [epochs_in("20,15@21,10@31,5@41,3@101,2@151", n) for n in range(1, 201)] == [
        resnet56(n) for n in range(1, 201)
    ]
    with pytest.raises(ConfigurationError, match="must ascend"):
        epochs_in("20,15@30,10@30", 1)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"fedgkt_server_epochs": "3,2@5,1@4"}, "must ascend"),
        ({"local_epochs": "3-1"}, "ends before it begins"),
    ],
)
def test_settings_that_cannot_work_are_found_before_any_work(
    changes: dict[str, Any], wrong: str, make_run: Callable[..., Run], small_config: Callable[..., Config]
) -> None:
    run = make_run(small_config(**{**SETTINGS, **changes}))
    with pytest.raises(ConfigurationError, match=wrong):
        FedGKTServer.check(run.config, run.reference.base, {})


def fresh(array: np.ndarray, place: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[place % changed.size] = value
    return changed


HOSTILE: dict[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
    "a feature that is not a number": lambda a, n: {**a, FEATURES: fresh(a[FEATURES], n, np.nan)},
    "an infinite feature": lambda a, n: {**a, FEATURES: fresh(a[FEATURES], n, np.inf)},
    "a feature below zero": lambda a, n: {**a, FEATURES: fresh(a[FEATURES], n, -0.1)},
    "a huge feature": lambda a, n: {**a, FEATURES: fresh(a[FEATURES], n, 1e30)},
    "features of another type": lambda a, n: {**a, FEATURES: a[FEATURES].astype("<f2")},
    "features of another size": lambda a, n: {**a, FEATURES: a[FEATURES][:, :, : 1 + n % 7]},
    "fewer features than ids": lambda a, n: {**a, FEATURES: a[FEATURES][: n % ROWS]},
    "a foreign id": lambda a, n: {**a, IDS: fresh(a[IDS], n, ROWS + n)},
    "an id below zero": lambda a, n: {**a, IDS: fresh(a[IDS], n, -1 - n)},
    "an id twice": lambda a, n: {**a, IDS: fresh(a[IDS], n, a[IDS].flat[(n + 1) % ROWS])},
    "more images than registered": lambda a, n: {k: np.concatenate([v, v]) for k, v in a.items()},
    "ids in two dimensions": lambda a, n: {**a, IDS: a[IDS][:, None]},
    "a label out of range": lambda a, n: {**a, LABELS: fresh(a[LABELS], n, 10 + n)},
    "a label below zero": lambda a, n: {**a, LABELS: fresh(a[LABELS], n, -1 - n)},
    "labels that are real": lambda a, n: {**a, LABELS: a[LABELS].astype("<f4")},
    "a logit that is not a number": lambda a, n: {**a, LOGITS: fresh(a[LOGITS], n, np.nan)},
    "a huge logit": lambda a, n: {**a, LOGITS: fresh(a[LOGITS], n, 1e9)},
    "logits of other classes": lambda a, n: {**a, LOGITS: a[LOGITS][:, : 1 + n % 9]},
    "no labels": lambda a, n: {k: v for k, v in a.items() if k != LABELS},
    "the test images too": lambda a, n: {**a, "test-features": a[FEATURES]},
}


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fault=st.sampled_from(sorted(HOSTILE)), place=st.integers(0, 10**4))
def test_hostile_answers_are_refused_and_the_others_count(
    fault: str, place: int, ready: FedGKTServer, devices: list[Device]
) -> None:
    before = server_weights(ready)
    strategy = answered(ready, devices, lambda arrays: HOSTILE[fault](arrays, place))
    assert [strategy.outcomes[name].status for name in ("a", "b")] == ["rejected", "trained"]
    assert ready.cohorts[0].name not in {name.partition("/")[2] for name in ready.snapshot().arrays}
    assert np.isfinite(ready.snapshot().arrays["server"]).all()
    assert server_weights(ready) != before


def test_a_device_does_not_make_its_own_limit_by_registering_more_images(start: Start, make_device: Any) -> None:
    """A row takes 4 KiB of memory and disk here, and 2^40 images would be as many rows."""
    method, liar = start(), make_device("a", 0, 2**40)
    many = answered(method, [liar, make_device("b", 1, ROWS)], lambda arrays: told(method, 0, 500))
    assert [many.outcomes[name].status for name in ("a", "b")] == ["rejected", "trained"]
    assert "one device may answer for 84 at most" in many.outcomes["a"].reason  # the images that the devices share


def answered(
    method: FedGKTServer, devices: list[Device], first: Callable[[dict[str, Any]], dict[str, Any]]
) -> MethodStrategy:
    """A round to which the devices answer, the first of them with what `first` makes of its arrays."""
    strategy = MethodStrategy(method, FederationState(), {one.name: one for one in devices}, method.run)
    messages = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), _Grid())  # type: ignore[arg-type]
    replies = []
    for number, message in enumerate(messages):
        message.metadata.__dict__["_message_id"] = f"m{number}"
        arrays = told(method, number)
        if number == 0:
            arrays = first(arrays)
        sent = {WEIGHTS: method.cohorts[number].weights, **arrays}
        content = Result("fedgkt", "extract", 1, ROWS, 0.5, 0.1, 1, {}).encode()
        content["arrays"] = ArrayRecord({name: Array(values) for name, values in sent.items()})
        replies.append(Message(content, reply_to=message))
    strategy.aggregate_train(1, replies)
    return strategy


def test_a_lie_within_what_is_possible_counts(start: Start, devices: list[Device]) -> None:
    ends = []
    for shift in (0, 1):
        method = start()
        for number, (step, device) in enumerate(zip(method.steps(1), devices, strict=True)):
            said = told(method, number)
            fold(method, step, device, {**said, LABELS: (said[LABELS] + shift * (number == 0)) % 10})
        method.finish(1)
        ends.append(server_weights(method))
    assert ends[0] != ends[1]


class _Grid:
    def get_node_ids(self) -> list[int]:
        return [7]


def test_a_reply_may_be_as_large_as_what_was_asked_for(start: Start) -> None:
    step = start().steps(1)[0]
    per_image = 16 * 8 * 8 * 4 + 4 + 4 + 10 * 4
    assert step.largest_reply(ROWS) == ROWS * per_image + step.cohort.weights.nbytes
