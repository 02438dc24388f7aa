"""Every setting has a test that fails if the setting is ignored; the table below says which.

Most are here: a tiny run with the setting changed must not end as the one without, or what a setting is said to do is
looked at where it is done. The others have tests of their own beside what they are about.
"""

import ast
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, MessageType
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from PIL import Image

from client.app import app
from client.data import device_data
from client.identity import identify
from common.architecture import Architecture
from common.budget import DeviceBudget
from common.config import Config
from common.errors import ConfigurationError
from common.fleet import PROFILES
from common.messages import Task
from common.methods import contract_of
from common.methods.training import TrainingOrder
from common.progress import Silent
from common.settings import Scalar
from server.federation import federate
from server.reference import Reference, load_reference
from server.run_folder import RunFolder
from simulation.grid import InlineGrid

ROOT = Path(__file__).resolve().parents[3]
HERE = "tests/feddac/cli/test_every_option.py"

ENDS_ELSEWHERE = f"{HERE}::test_a_run_with_the_setting_ends_elsewhere"
REFERENCE = f"{HERE}::test_the_server_prepares_its_images_and_network_as_asked"
TASKS = f"{HERE}::test_devices_are_asked_as_the_settings_say"
LOCAL = "tests/client/test_training.py::test_the_task_decides_how_a_device_trains"
FLIPS = "tests/server/methods/test_autoflip.py"
EXPLORATION = f"{FLIPS}::test_an_exploration_is_charged_for_the_epochs_it_took"
BUDGETS = f"{HERE}::test_a_device_of_the_fleet_has_the_budget_that_the_settings_give_it"

FEDGKT = "tests/client/methods/test_fedgkt.py::test_the_order_decides_how_a_device_trains"
FEDGKT_SENDS = "tests/client/methods/test_fedgkt.py::test_it_is_what_the_server_admits"
GKT = "tests/server/methods/test_fedgkt.py"
FEDGKT_SERVER = f"{GKT}::test_its_settings_change_what_the_server_learns"
FEDNAS = "tests/server/methods/test_fednas.py"
CELL_STEPS = "tests/client/methods/test_fednas.py"
CELLS = f"{FEDNAS}::test_devices_are_told_how_to_train_cells_and_charged_for_it"

COVERED_BY = {
    "data": f"{HERE}::test_data_are_found_by_name_and_folder",
    "image-size": "tests/common/data/test_sources.py::test_images_of_any_size_are_brought_to_one",
    "data-folder": f"{HERE}::test_data_are_found_by_name_and_folder",
    "train-images": REFERENCE,
    "test-images": REFERENCE,
    "reference-fraction": REFERENCE,
    "validation-fraction": REFERENCE,
    "partition": f"{HERE}::test_devices_share_the_images_as_asked",
    "augment": REFERENCE,
    "model": REFERENCE,
    "width": REFERENCE,
    "stem-stride": REFERENCE,
    "strides": REFERENCE,
    "recipe": ENDS_ELSEWHERE,
    "search-space": ENDS_ELSEWHERE,
    "channel-floor": "tests/dac/test_whole_space.py::test_the_floor_of_the_whole_space_is_far_lower_and_named",
    "channel-multiple": ENDS_ELSEWHERE,
    "warmup-epochs": ENDS_ELSEWHERE,
    "epochs-per-step": ENDS_ELSEWHERE,
    "step-share": ENDS_ELSEWHERE,
    "fine-tune-epochs": ENDS_ELSEWHERE,
    "joint-epochs": ENDS_ELSEWHERE,
    "search-learning-rate": ENDS_ELSEWHERE,
    "search-batch-size": REFERENCE,
    "search-momentum": ENDS_ELSEWHERE,
    "search-weight-decay": ENDS_ELSEWHERE,
    "entropy-coefficient": ENDS_ELSEWHERE,
    "devices": f"{HERE}::test_devices_share_the_images_as_asked",
    "fleet": BUDGETS,
    "max-latency-ms": BUDGETS,
    "max-macs": BUDGETS,
    "max-params": BUDGETS,
    "max-memory": BUDGETS,
    "max-training-memory": BUDGETS,
    "max-cohorts": ENDS_ELSEWHERE,
    "method": ENDS_ELSEWHERE,
    "architectures": "tests/server/methods/test_dac.py::test_a_run_with_given_architectures_and_its_resumption",
    "fedavg-model": ENDS_ELSEWHERE,
    "proximal-coefficient": ENDS_ELSEWHERE,
    "autoflip-mode": f"{FLIPS}::test_structured_removal_makes_tensors_smaller_and_costs_and_traffic_fall",
    "autoflip-threshold": ENDS_ELSEWHERE,
    "autoflip-guidance": f"{FLIPS}::test_chance_explores_nothing_and_removes_as_much",
    "autoflip-explorers": EXPLORATION,
    "autoflip-exploration-epochs": EXPLORATION,
    "autoflip-patience": EXPLORATION,
    "autoflip-normalisation": ENDS_ELSEWHERE,
    "autoflip-server-momentum": f"{FLIPS}::test_without_momentum_the_mean_is_the_model",
    "fednas-lowest-learning-rate": CELLS,
    "fednas-architecture-learning-rate": CELLS,
    "fednas-architecture-weight-decay": CELLS,
    "fednas-training-coefficient": CELLS,
    "fednas-validation-coefficient": CELLS,
    "fednas-drop-path": CELLS,
    "fednas-auxiliary-coefficient": f"{CELL_STEPS}::test_the_auxiliary_heads_loss_has_its_coefficient",
    "fednas-search-rounds": f"{FEDNAS}::test_the_stages_follow_with_a_genotype_after_each_round_of_the_search",
    "fednas-warmup-rounds": f"{FEDNAS}::test_in_warm_up_rounds_weights_alone_are_trained_and_paid_for",
    "fednas-search-epochs": CELLS,
    "fednas-genotype": f"{FEDNAS}::test_a_given_genotype_is_trained_from_the_first_round",
    "fednas-channels": f"{FEDNAS}::test_a_device_that_cannot_hold_the_supernet_is_told_how_many_channels_it_could",
    "fednas-cells": f"{FEDNAS}::test_the_network_has_so_many_channels_and_cells",
    "pretraining-epochs": ENDS_ELSEWHERE,
    "aggregation": ENDS_ELSEWHERE,
    "batch-norm": ENDS_ELSEWHERE,
    "masked-loss": ENDS_ELSEWHERE,
    "distillation-epochs": ENDS_ELSEWHERE,
    "distillation-learning-rate": ENDS_ELSEWHERE,
    "fedgkt-temperature": FEDGKT,
    "fedgkt-alpha": FEDGKT,
    "fedgkt-feature-type": FEDGKT_SENDS,
    "fedgkt-feature-clip": FEDGKT_SENDS,
    "fedgkt-server": FEDGKT_SERVER,
    "fedgkt-server-epochs": FEDGKT_SERVER,
    "fedgkt-server-batch-size": FEDGKT_SERVER,
    "fedgkt-server-optimizer": FEDGKT_SERVER,
    "fedgkt-server-learning-rate": FEDGKT_SERVER,
    "fedgkt-server-distillation": FEDGKT_SERVER,
    "fedgkt-score": f"{GKT}::test_the_small_network_is_scored_instead_where_that_is_asked_for",
    "rounds": TASKS,
    "local-epochs": TASKS,
    "local-batch-size": TASKS,
    "optimizer": ENDS_ELSEWHERE,
    "learning-rate": TASKS,
    "learning-rate-decay": ENDS_ELSEWHERE,
    "momentum": TASKS,
    "weight-decay": TASKS,
    "max-gradient-norm": TASKS,
    "fraction": TASKS,
    "min-devices": f"{HERE}::test_at_least_so_many_devices_train",
    "initial-weights": ENDS_ELSEWHERE,
    "test-batch-size": TASKS,
    "evaluate-every": TASKS,
    "device-evaluation": ENDS_ELSEWHERE,
    "patience": "tests/server/test_federation.py::test_it_stops_when_validation_no_longer_improves",
    "robust-aggregation": ENDS_ELSEWHERE,
    "trim-share": ENDS_ELSEWHERE,
    "clip-norm": ENDS_ELSEWHERE,
    "max-device-share": ENDS_ELSEWHERE,
    "local-dp-clipping-norm": ENDS_ELSEWHERE,
    "local-dp-epsilon": "tests/client/test_privacy.py::test_noise_of_the_gaussian_mechanism_is_added",
    "local-dp-delta": "tests/client/test_privacy.py::test_a_larger_delta_needs_less_noise",
    "handshake-timeout": f"{HERE}::test_devices_have_so_many_seconds_to_report",
    "handshake-every": "tests/server/test_changing_devices.py::test_handshake_every_says_in_which_rounds_all_are_asked",
    "round-timeout": TASKS,
    "seed": TASKS,
    "out": "tests/server/test_app.py::test_it_writes_the_run_folder_and_the_report",
    "accelerator": f"{HERE}::test_tensors_live_where_asked",
}

TINY: dict[str, Scalar] = {
    "model": "mlp",
    "devices": 5,
    "rounds": 1,
    "local-epochs": "1",
    "fleet": "phone",
    "max-params": "15k",
    "train-images": 240,
    "test-images": 40,
    "warmup-epochs": 1,
    "epochs-per-step": 1,
    "fine-tune-epochs": 1,
    "accelerator": "cpu",
}

# the largest network of this fleet does not fit its second half, so there are two cohorts
FLEET = '[[device]]\ncount = 2\nparams = "13k"\n[[device]]\ncount = 3\nparams = "7k"\n'
TWO_COHORTS: dict[str, Scalar] = {"fleet": "{fleet}", "max-params": ""}
SHRINKING: dict[str, Scalar] = {"max-params": "8k"}
MOBILE: dict[str, Scalar] = {
    "model": "mobilenet_v2",
    "width": 0.25,
    "stem-stride": 2,
    "fleet": "workstation",
    "max-params": "",
    "devices": 2,
    "train-images": 80,
}

FLIP: dict[str, Scalar] = {
    "method": "autoflip",
    "rounds": 2,
    "pretraining-epochs": 1,
    "autoflip-exploration-epochs": 1,
}

# setting: (value that is not the default, what the run needs beside it for the setting to matter)
CHANGES: dict[str, tuple[Scalar, dict[str, Scalar]]] = {
    "recipe": ("paper", MOBILE),
    "search-space": ("inner", MOBILE),
    "channel-multiple": (64, SHRINKING),
    "warmup-epochs": (2, {}),
    "epochs-per-step": (3, SHRINKING),
    "step-share": (0.05, SHRINKING),
    "fine-tune-epochs": (2, {}),
    "joint-epochs": (2, TWO_COHORTS),
    "search-learning-rate": (0.02, {}),
    "search-momentum": (0.5, {}),
    "search-weight-decay": (0.1, {}),
    "entropy-coefficient": (5.0, {}),
    "max-cohorts": (1, TWO_COHORTS),
    "method": ("fedavg", {}),
    "fedavg-model": ("largest", {"method": "fedavg", "pretraining-epochs": 1}),
    "proximal-coefficient": (1.0, {"method": "fedprox", "pretraining-epochs": 1}),
    "autoflip-threshold": (0.6, FLIP),
    "autoflip-normalisation": ("robust", FLIP),
    "optimizer": ("adam", {}),
    "learning-rate-decay": (0.5, {"rounds": 2}),
    "pretraining-epochs": (2, {"method": "fedavg"}),
    "aggregation": ("overlap", TWO_COHORTS),
    "batch-norm": ("recalibrate", MOBILE),
    "masked-loss": ("exclude", {"partition": "classes:2"}),
    "distillation-epochs": (1, TWO_COHORTS),
    "distillation-learning-rate": (0.1, {**TWO_COHORTS, "distillation-epochs": 1}),
    "initial-weights": ("random", {}),
    "robust-aggregation": ("median", {}),
    "trim-share": (0.4, {"robust-aggregation": "trimmed-mean"}),
    "clip-norm": (0.5, {}),
    "max-device-share": (0.21, {"partition": "dirichlet:0.5"}),
    "local-dp-clipping-norm": (0.5, {}),
    "device-evaluation": (False, {"train-images": 400}),  # with fewer no device holds any out
}


class Watched(InlineGrid):
    """A grid that keeps every task it carries."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tasks: list[tuple[str, Task]] = []
        self.timeouts: set[float] = set()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Note what is asked, then ask."""
        messages = list(messages)
        for message in messages:
            self._note(message)
        return super().push_messages(messages)

    def _note(self, message: Message) -> None:
        kind = message.metadata.message_type
        if kind in (MessageType.TRAIN, MessageType.EVALUATE):
            self.tasks.append((kind, Task.decode(message.content, Architecture)))
        else:
            self.timeouts.add(message.metadata.ttl)


def config_of(tmp_path: Path, settings: dict[str, Scalar]) -> Config:
    (tmp_path / "fleet.toml").write_text(FLEET)
    named = {key: str(tmp_path / "fleet.toml") if value == "{fleet}" else value for key, value in settings.items()}
    contract = contract_of(str(settings.get("method", "dac")))
    tiny = {key: value for key, value in TINY.items() if contract.reads_setting(key)}
    return Config.from_mapping({**tiny, **named})


@pytest.fixture
def run(tmp_path: Path, task_identity: None) -> Callable[..., tuple[Watched, RunFolder]]:
    def start(settings: dict[str, Scalar]) -> tuple[Watched, RunFolder]:
        config = config_of(tmp_path, settings)
        count = config.fleet.devices
        nodes = [{"partition-id": number, "num-partitions": count} for number in range(count)]
        grid = Watched(app, nodes, config.to_mapping(), Run.create_empty(1))
        with RunFolder.create(tmp_path / f"run-{len(list(tmp_path.iterdir()))}") as folder:
            federate(grid, config, folder, Silent(), False)
        return grid, folder

    return start


@pytest.fixture
def task_identity() -> None:
    """Flower refuses to make a message in a process that does not know which run it works for."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def fingerprint(folder: RunFolder) -> str:
    """Of the final models of a run."""
    files = sorted((folder.path / "models").iterdir())
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


_ENDS: dict[str, str] = {}


@pytest.mark.parametrize("key", CHANGES)
def test_a_run_with_the_setting_ends_elsewhere(key: str, run: Callable[..., Any]) -> None:
    value, needed = CHANGES[key]
    assert Config().to_mapping()[key] != value
    without = str(sorted(needed.items()))
    if without not in _ENDS:
        _ENDS[without] = fingerprint(run(needed)[1])
    assert fingerprint(run({**needed, key: value})[1]) != _ENDS[without]


def test_two_equal_runs_end_alike(run: Callable[..., Any]) -> None:
    assert fingerprint(run({})[1]) == fingerprint(run({})[1])


@pytest.mark.parametrize(
    ("settings", "look", "expected"),
    [
        ({"train-images": 500}, lambda found: len(found.train.images) + len(found.validation.images), 150),
        ({"test-images": 70}, lambda found: len(found.test.images), 70),
        ({"reference-fraction": 0.5}, lambda found: len(found.train.images) + len(found.validation.images), 120),
        ({"validation-fraction": 0.5}, lambda found: len(found.validation.images), 36),
        ({"augment": "crop"}, lambda found: found.train.preprocessor.augment, "crop"),
        ({"model": "cnn"}, lambda found: found.base.model, "cnn"),
        ({"width": 0.5}, lambda found: found.base.width, 0.5),
        ({"stem-stride": 2}, lambda found: found.base.stem_stride, 2),
        ({"strides": "1,2,2,2,1,2,1"}, lambda found: found.base.strides, (1, 2, 2, 2, 1, 2, 1)),
        ({"search-batch-size": 9}, lambda found: found.train.batch_size, 9),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_server_prepares_its_images_and_network_as_asked(
    settings: dict[str, Scalar], look: Callable[[Reference], Any], expected: Any, tmp_path: Path
) -> None:
    assert look(load_reference(config_of(tmp_path, settings))) == expected
    assert look(load_reference(config_of(tmp_path, {}))) != expected


@pytest.mark.parametrize(
    ("first", "second"),
    [({"width": 1.0}, {"width": 0.5}), ({}, {"stem-stride": 2}), ({}, {"strides": "1,2,2,2,1,2,1"})],
)
def test_other_networks_cost_otherwise(first: dict[str, Scalar], second: dict[str, Scalar], tmp_path: Path) -> None:
    costs = [
        (Architecture.full(load_reference(config_of(tmp_path, {"model": "mobilenet_v2", **one})).base)).costs
        for one in (first, second)
    ]
    assert costs[0].macs > costs[1].macs


def test_devices_share_the_images_as_asked(tmp_path: Path) -> None:
    """168 of the 240 images are for the devices."""
    all_of_them: dict[str, Scalar] = {"device-evaluation": False}
    counts = {n: len(device_data({}, config_of(tmp_path, {"devices": n, **all_of_them})).train) for n in (2, 4)}
    assert counts == {2: 84, 4: 42}
    two = device_data({}, config_of(tmp_path, {"partition": "classes:2"})).train
    assert len(set(two.labels.tolist())) == 2


def test_data_are_found_by_name_and_folder(tmp_path: Path) -> None:
    for label, grey in (("day", 200), ("night", 20)):
        for part in ("train", "test"):
            (tmp_path / "own" / part / label).mkdir(parents=True)
            for number in range(20):
                name = tmp_path / "own" / part / label / f"{number}.png"
                Image.new("RGB", (12, 12), (grey, number, 0)).save(name)
    cache = tmp_path / "cache"
    settings: dict[str, Scalar] = {
        "data": str(tmp_path / "own"),
        "data-folder": str(cache),
        "train-images": 0,
        "test-images": 0,
    }
    base = load_reference(config_of(tmp_path, settings)).base
    assert (base.input_shape, base.classes) == ((3, 12, 12), 2)
    assert list(cache.rglob("set.json"))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"fleet": "workstation"}, PROFILES["workstation"].budget(20.0)),
        ({"max-latency-ms": 40.0}, PROFILES["phone"].budget(40.0)),
        ({"max-macs": "3k"}, replace(PROFILES["phone"].budget(20.0), macs=3000)),
        ({"max-params": "4k"}, replace(PROFILES["phone"].budget(20.0), params=4000)),
        ({"max-memory": "5KB"}, replace(PROFILES["phone"].budget(20.0), peak_memory_bytes=5000)),
        ({"max-training-memory": "6KB"}, replace(PROFILES["phone"].budget(20.0), training_memory_bytes=6000)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_device_of_the_fleet_has_the_budget_that_the_settings_give_it(
    settings: dict[str, Scalar], expected: DeviceBudget, tmp_path: Path
) -> None:
    fleet = config_of(tmp_path, {"max-params": "", **settings}).fleet
    assert identify({"partition-id": 0}, fleet).budget == expected != PROFILES["phone"].budget(20.0)


def test_devices_are_asked_as_the_settings_say(run: Callable[..., tuple[Watched, RunFolder]]) -> None:
    settings: dict[str, Scalar] = {
        "rounds": 3,
        "local-epochs": "3",
        "local-batch-size": 7,
        "learning-rate": 0.03,
        "momentum": 0.25,
        "weight-decay": 0.001,
        "max-gradient-norm": 2.5,
        "masked-loss": "zero",
        "fraction": 0.6,
        "test-batch-size": 33,
        "evaluate-every": 2,
        "train-images": 400,
        "round-timeout": 77.0,
        "seed": 4,
    }
    assert all(Config().to_mapping()[key] != value and TINY.get(key) != value for key, value in settings.items())
    grid, folder = run(settings)
    trained = [task for kind, task in grid.tasks if kind == MessageType.TRAIN]
    scored = [task for kind, task in grid.tasks if kind == MessageType.EVALUATE]
    assert [task.round for task in trained] == [1] * 3 + [2] * 3 + [3] * 3  # three fifths of five devices
    assert [task.round for task in scored] == [3] * 5  # the last
    for task in trained:
        order = TrainingOrder.from_mapping(task.order)
        assert (order.epochs, order.batch_size, task.seed, order.masked_loss) == (3, 7, 4, "zero")
        assert (order.learning_rate, order.momentum, order.weight_decay) == (0.03, 0.25, 0.001)
        assert order.max_gradient_norm == 2.5
        assert 70 < task.deadline_seconds < 77
    assert {task.order["batch-size"] for task in scored} == {33}
    assert sorted({event["round"] for event in folder.events("evaluation")}) == [0, 2, 3]


def test_at_least_so_many_devices_train(run: Callable[..., tuple[Watched, RunFolder]]) -> None:
    grid, _ = run({"fraction": 0.2, "min-devices": 3})
    assert len(grid.tasks) == 3


def test_devices_have_so_many_seconds_to_report(run: Callable[..., tuple[Watched, RunFolder]]) -> None:
    grid, _ = run({"handshake-timeout": 43.0})
    assert grid.timeouts == {43.0}


def test_tensors_live_where_asked(
    run: Callable[..., tuple[Watched, RunFolder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="accelerator"):
        run({"accelerator": "cuda"})


def test_every_setting_is_covered_by_a_test_that_exists() -> None:
    assert set(COVERED_BY) == set(Config().to_mapping())
    assert {key for key, test in COVERED_BY.items() if test == ENDS_ELSEWHERE} <= set(CHANGES)
    for test in set(COVERED_BY.values()):
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
