"""FedNAS on the server: means of everything, the stages, what is written down, and who is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.arrays import Array
from common.budget import DeviceBudget
from common.config import Config
from common.effects import require_effect
from common.errors import ArchitectureError, BudgetError, ConfigurationError, MessageError
from common.messages import WEIGHTS, Result
from common.methods.fednas import ALPHAS, SEARCH, CellOrder, FedNASSettings, search_macs
from common.methods.training import TRAIN
from common.models.darts import Design
from common.models.darts_space import EDGES, HEAVIEST, PUBLISHED, chosen
from common.models.description import BaseNetwork
from dac.model_file import read_model
from server.cohorts import architecture_of
from server.devices import Device
from server.methods.cell_networks import alphas_of, network_of, require_held
from server.methods.fednas import FedNASServer
from server.methods.genotypes import read_genotype, write_genotype
from server.methods.method import Snapshot
from server.report.build import build_report
from server.run import Run
from server.run_folder import RunFolder
from server.steps import Step
from tests.server.helpers import Crash, models

BASE = BaseNetwork("mlp", (1, 8, 8), 10)
TINY = {
    "method": "fednas",
    "fednas_channels": 1,
    "fednas_cells": 3,
    "fednas_search_rounds": 2,
    "rounds": 4,
    "local_epochs": "1",
    "max_params": "",
    "train_images": 120,
    "test_images": 20,
}
FINE = FedNASSettings(fednas_channels=1, fednas_cells=3)


@pytest.fixture
def make_config(small_config: Callable[..., Config]) -> Callable[..., Config]:
    return lambda **changes: small_config(**{**TINY, **changes})


@pytest.fixture
def make_server(
    make_run: Callable[..., Run], make_config: Callable[..., Config], make_device: Callable[..., Device]
) -> Callable[..., tuple[FedNASServer, list[Device]]]:
    """The method after `prepare`, with three devices of 10, 20 and 30 images."""

    def make(**changes: Any) -> tuple[FedNASServer, list[Device]]:
        method = FedNASServer(make_run(make_config(**changes)))
        devices = [make_device(f"device-{i}", i, samples=10 * (i + 1), node_id=i) for i in range(3)]
        method.prepare(devices)
        return method, devices

    return make


def answer(step: Step, device: Device, weights: Array) -> Result:
    result = Result("fednas", step.name, 1, device.report.samples, 0.5, 0.1, 1, {WEIGHTS: weights})
    decoded = Result.decode(result.encode(), step.reply, device.report.samples)
    return decoded


def play(method: FedNASServer, devices: list[Device], number: int, change: Callable[[Device], float]) -> Step:
    """A round in which every device adds a number of its own to all weights."""
    (step,) = method.steps(number)
    for device in devices:
        step.order(device)
        method.fold(step, device, answer(step, device, step.arrays[WEIGHTS] + np.float32(change(device))))
    method.finish(number)
    return step


def test_weights_and_alphas_are_means_by_samples(make_server: Callable[..., Any]) -> None:
    """Of all devices, with shares that sum to one: not the first device's, nor smaller than they were."""
    method, devices = make_server()
    (cohort,) = method.cohorts
    before, alphas = cohort.weights.copy(), alphas_of(cohort).copy()
    play(method, devices, 1, lambda device: device.report.samples / 100)
    mean = (10 * 0.1 + 20 * 0.2 + 30 * 0.3) / 60
    assert np.allclose(cohort.weights, before + mean, atol=1e-6)
    assert np.allclose(alphas_of(cohort), alphas + mean, atol=1e-6)


def test_robust_means_and_their_notes_are_those_of_every_method(make_server: Callable[..., Any]) -> None:
    method, devices = make_server(robust_aggregation="median")
    (cohort,) = method.cohorts
    alphas = alphas_of(cohort).copy()
    play(method, devices, 1, lambda device: {"device-0": 0.1, "device-1": 0.2, "device-2": 10.0}[device.name])
    assert np.allclose(alphas_of(cohort), alphas + 0.2, atol=1e-6)
    assert method.notes(cohort)["protected"] is True
    method.steps(2)
    method.finish(2)
    assert "protected" not in method.notes(cohort)  # nobody answered, so nothing was averaged


def test_the_stages_follow_with_a_genotype_after_each_round_of_the_search(
    make_server: Callable[..., Any],
) -> None:
    method, devices = make_server()
    (cohort,) = method.cohorts
    folder = method.run.folder
    generator = np.random.default_rng(0)
    for number in (1, 2):
        step = play(method, devices, number, lambda device: 0.0)
        alphas_of(cohort)[:] = generator.normal(size=(2, EDGES, 8))
        method.finish(number)  # nobody answered: the alphas are as they were set
        assert step.name == SEARCH
        path = folder.method_folder / f"genotype-{number:05d}.json"
        assert read_genotype(str(path)) == chosen(alphas_of(cohort))
        assert method.notes(cohort) == {"genotype": chosen(alphas_of(cohort)).code}
    found = chosen(alphas_of(cohort))
    assert json.loads(path.read_text())["model"] == Design(1, 3, found).name
    assert architecture_of(cohort).base.model == "darts_1x3"
    step = play(method, devices, 3, lambda device: 0.0)
    assert step.name == TRAIN
    assert architecture_of(cohort).base.model == Design(1, 3, found).name
    assert step.arrays[WEIGHTS].shape == (cohort.network.layout.size,)
    assert method.notes(cohort) == {}
    assert sorted(path.name for path in folder.method_folder.iterdir()) == [
        "genotype-00001.json",
        "genotype-00002.json",
    ]
    events = folder.events("architecture")
    assert [(event["round"], event["params"]) for event in events] == [(0, 12_415), (3, cohort.network.costs.params)]


def test_devices_are_told_how_to_train_cells_and_charged_for_it(make_server: Callable[..., Any]) -> None:
    own = {
        "fednas_drop_path": 0.25,
        "fednas_training_coefficient": 0.5,
        "fednas_validation_coefficient": 0.25,
        "fednas_architecture_learning_rate": 0.01,
        "fednas_architecture_weight_decay": 0.02,
        "fednas_lowest_learning_rate": 0.002,
    }
    method, devices = make_server(**own, local_epochs="2", fednas_search_epochs=3, fednas_search_rounds=1)
    (step,) = method.steps(1)
    order = step.order(devices[0])
    assert isinstance(order.settings, CellOrder)
    assert {name: getattr(order.settings, name) for name in own} == own
    assert order.settings.epochs == 3
    assert order.macs_per_sample == search_macs(step.cohort.network.costs.macs, order.settings)
    (step,) = method.steps(2)
    assert step.order(devices[0]).settings.to_mapping()["epochs"] == 2
    assert step.order(devices[0]).macs_per_sample == 3 * 2 * step.cohort.network.costs.macs
    assert "fednas-genotype" not in step.order(devices[0]).settings.to_mapping()  # a path of this machine


def test_in_warm_up_rounds_weights_alone_are_trained_and_paid_for(make_server: Callable[..., Any]) -> None:
    method, devices = make_server(fednas_warmup_rounds=1, fednas_training_coefficient=0.5)
    warm, search = (method.steps(number)[0].order(devices[0]) for number in (1, 2))
    coefficients = [
        (one.settings.fednas_training_coefficient, one.settings.fednas_validation_coefficient)
        for one in (warm, search)
        if isinstance(one.settings, CellOrder)
    ]
    assert coefficients == [(0.0, 0.0), (0.5, 1.0)]
    macs = method.cohorts[0].network.costs.macs
    assert (warm.macs_per_sample, search.macs_per_sample) == (3 * macs // 2, 7 * macs // 2)


@pytest.mark.parametrize("value", [20.5, -20.5, 1e4])
def test_alphas_that_no_search_makes_are_refused(value: float, make_server: Callable[..., Any]) -> None:
    method, devices = make_server()
    (step,) = method.steps(1)
    layout = step.cohort.network.layout
    weights = step.arrays[WEIGHTS].copy()
    layout.tensor(weights, ALPHAS)[1, 3, 4] = value
    with pytest.raises(MessageError, match="what is possible"):
        answer(step, devices[0], weights)
    weights = step.arrays[WEIGHTS].copy()
    layout.tensor(weights, "classifier.weight")[0, 0] = value  # a weight may be so large
    answer(step, devices[0], weights) if abs(value) < 100 else None


def test_an_answer_of_the_other_stage_is_refused(make_server: Callable[..., Any]) -> None:
    method, devices = make_server(fednas_search_rounds=1)
    (searching,) = method.steps(1)
    (training,) = method.steps(2)
    with pytest.raises(MessageError, match="shape"):
        answer(training, devices[0], searching.arrays[WEIGHTS])


def test_a_device_that_cannot_hold_the_supernet_is_told_how_many_channels_it_could(
    make_server: Callable[..., Any], make_device: Callable[..., Device]
) -> None:
    method, _ = make_server(fednas_channels=3)
    weak, strong = make_device("weak", 9, params=30_000), make_device("strong", 8)
    method.prepare([weak, strong])
    (cohort,) = method.cohorts
    assert cohort.devices == ["strong"]
    (event,) = method.run.folder.events("device")
    assert (event["device"], event["status"]) == ("weak", "rejected")
    assert "the supernet of 3 channels and 3 cells" in event["reason"]
    assert event["reason"].endswith("with --fednas-channels 2 it could")
    assert method.place(weak) is None
    assert method.place(strong) is cohort


def test_no_device_that_can_search_ends_in_one_line() -> None:
    with pytest.raises(BudgetError, match="with one channel it could not either"):
        require_held(DeviceBudget(params=1000), FINE, BASE, None)
    require_held(DeviceBudget(params=12_416), FINE, BASE, None)
    with pytest.raises(BudgetError):
        require_held(DeviceBudget(params=12_415), FINE, BASE, None)


def test_an_auxiliary_head_counts_before_the_search() -> None:
    base = BaseNetwork("mlp", (3, 32, 32), 10)
    headed = FedNASSettings(fednas_channels=1, fednas_cells=3, fednas_auxiliary_coefficient=0.4)
    needed = network_of(headed, base, HEAVIEST).costs
    assert needed.params > network_of(headed, base, None).costs.params
    with pytest.raises(BudgetError):
        require_held(DeviceBudget(params=needed.params), headed, base, None)
    require_held(DeviceBudget(params=needed.params + 1), headed, base, None)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rounds": 2}, ConfigurationError, "leaves none to train what it finds: raise --rounds"),
        ({"fednas_warmup_rounds": 2}, ConfigurationError, "leaves none that moves the architecture: lower it"),
        ({"learning_rate": 0.0005}, ConfigurationError, "fednas-lowest-learning-rate = 0.001 is above learning-rate"),
        ({"fednas_genotype": "DARTS_V9"}, ConfigurationError, "neither a file nor one of FedNAS_V1, DARTS_V2"),
        ({"fednas_auxiliary_coefficient": 0.4}, ArchitectureError, "images of at least 32 pixels"),
        ({"local_epochs": "5-3"}, ConfigurationError, "local-epochs"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(
    changes: dict[str, Any], error: type[Exception], message: str, make_config: Callable[..., Config]
) -> None:
    with pytest.raises(error, match=message):
        FedNASServer.check(make_config(**changes), BASE, {})


def test_a_run_that_has_begun_does_not_look_for_its_genotype_again(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(fednas_genotype=str(tmp_path / "gone.json"), rounds=1)
    with pytest.raises(ConfigurationError, match="neither a file nor one of"):
        FedNASServer.check(config, BASE, {})
    FedNASServer.check(config, BASE, {}, begun=True)


@pytest.mark.parametrize("key", ["model", "width", "patience", "initial_weights", "pretraining_epochs"])
def test_settings_without_effect_are_refused(key: str, make_config: Callable[..., Config]) -> None:
    value = {"model": "cnn", "width": 0.5, "patience": 3, "initial_weights": "random", "pretraining_epochs": 3}[key]
    with pytest.raises(ConfigurationError, match="method fednas does not read"):
        require_effect(make_config(**{key: value}))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "feddac-genotype", "version": 1, "normal": []}', "\x00"])
def test_files_that_hold_no_genotype_end_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cells.json"
    path.write_text(text)
    with pytest.raises(ArchitectureError, match=r"^[^\n]*$") as caught:
        read_genotype(str(path))
    assert str(path) in str(caught.value)


def test_a_genotype_file_says_what_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alphas = np.random.default_rng(1).normal(size=(2, EDGES, 8)).astype(np.float32)
    write_genotype(tmp_path / "one.json", 7, alphas, "darts_1x3_...")
    data = json.loads((tmp_path / "one.json").read_text())
    assert data["round"] == 7
    assert np.allclose(np.sum(data["shares"], axis=-1), 1, atol=1e-5)
    assert read_genotype(str(tmp_path / "one.json")) == chosen(alphas)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_genotype("~/one.json") == chosen(alphas)


def test_the_network_has_so_many_channels_and_cells() -> None:
    for channels, cells in ((1, 3), (2, 4)):
        settings = FedNASSettings(fednas_channels=channels, fednas_cells=cells)
        assert network_of(settings, BASE, None).base.model == f"darts_{channels}x{cells}"
        assert network_of(settings, BASE, HEAVIEST).base.model == Design(channels, cells, HEAVIEST).name


def test_a_given_genotype_is_trained_from_the_first_round(make_server: Callable[..., Any], tmp_path: Path) -> None:
    method, devices = make_server(fednas_genotype="FedNAS_V1", rounds=1)
    (cohort,) = method.cohorts
    assert architecture_of(cohort).base.model == Design(1, 3, PUBLISHED["FedNAS_V1"]).name
    assert play(method, devices, 1, lambda device: 0.1).name == TRAIN
    assert not method.run.folder.method_folder.exists()
    again = FedNASServer(method.run)
    again.restore(method.cohorts, Snapshot())
    assert again.steps(2)[0].name == TRAIN


# After some answers of the first and of the third round, one of each stage.
@pytest.mark.slow  # test_every_method.py cuts it too
@pytest.mark.parametrize("instant", [5, 12])
def test_a_run_that_is_cut_in_either_stage_ends_with_the_same_files(
    instant: int, run_federation: Callable[..., Any], make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(fednas_search_rounds=1, rounds=3, device_evaluation=True)
    summary = run_federation(config, tmp_path / "whole")
    whole = RunFolder.open(tmp_path / "whole")
    assert set(summary["traffic"]) == {"search", "train", "evaluate"}
    path = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run_federation(config, path, progress=Crash(instant))
    run_federation(config, path, resume=True)
    assert models(path) == models(tmp_path / "whole")
    for name in ("method/genotype-00001.json", "architectures/cohort-0.json"):
        assert (path / name).read_bytes() == (whole.path / name).read_bytes()
    assert RunFolder.open(path).events("evaluation") == whole.events("evaluation")
    model = read_model(whole.model_path("cohort-0"))
    assert (
        model.architecture.base.model == json.loads((whole.method_folder / "genotype-00001.json").read_text())["model"]
    )
    assert build_report(whole.path).exists()
