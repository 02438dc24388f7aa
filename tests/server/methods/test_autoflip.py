"""AutoFLIP's server half: who explores and what it costs, what is removed, the server's momentum, and resumption."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.architecture import Architecture
from common.config import Config
from common.errors import ConfigurationError, MessageError
from common.messages import Result
from common.methods.autoflip import EXPLORE, SPARSE
from common.models.description import BaseNetwork
from common.progress import Silent
from common.sparse import packed, unpacked
from dac.files import load_member
from server.cohorts import Cohort
from server.devices import Device
from server.methods import guidance
from server.methods.autoflip import AutoFLIPServer
from server.methods.method import Snapshot
from server.methods.reference_training import recalibrate_cohorts
from server.run import Run
from server.run_folder import RunFolder
from tests.examples import examples
from tests.server.helpers import TWO_BUDGETS, Crash, models

# two pixels, three hidden units, two classes: 17 weights, all of which are guided
SMALL = Architecture.with_kept(BaseNetwork("mlp", (1, 1, 2), 2), {"hidden": range(3)})
BASE = np.linspace(-0.8, 0.9, 17, dtype=np.float32)
QUICK = {
    "method": "autoflip",
    "pretraining_epochs": 1,
    "train_images": 200,
    "test_images": 40,
    "autoflip_exploration_epochs": 2,
    "local_epochs": "1",
    "rounds": 3,
}


@pytest.fixture
def make_flip(make_run: Callable[..., Run], small_config: Callable[..., Config]) -> Callable[..., AutoFLIPServer]:
    """The method with one small cohort of two devices, as after `prepare`."""

    def make(**changes: Any) -> AutoFLIPServer:
        method = AutoFLIPServer(make_run(small_config(method="autoflip", autoflip_threshold=0.3, **changes)))
        method.restore([Cohort("cohort-0", SMALL, BASE.copy(), 0.1, ["a", "b"])], Snapshot())
        return method

    return make


def answered(step: str, samples: int = 10, **arrays: Any) -> Result:
    return Result("autoflip", step, 1, samples, 0.5, 0.1, 1, arrays)


def explored(method: AutoFLIPServer, devices: list[Device], *moved: Any, epochs: tuple[int, ...] = (2, 2)) -> None:
    """One round of exploration with these squared displacements."""
    (step,) = method.steps(1)
    assert step.name == EXPLORE
    for device, one, took in zip(devices, moved, epochs, strict=True):
        arrays = {"displacement": np.asarray(one, np.float32), "epochs": np.array([took], np.int32)}
        method.fold(step, device, answered(EXPLORE, device.report.samples, **arrays))
    method.finish(1)


def trained(method: AutoFLIPServer, devices: list[Device], number: int, *weights: Any) -> None:
    (step,) = method.steps(number)
    assert step.name == SPARSE
    kept = unpacked(step.arrays["mask"], 17)
    assert np.array_equal(step.arrays["values"], method.cohorts[0].weights[kept])
    for device, one in zip(devices, weights, strict=True):
        values = np.asarray(one, np.float32)[kept]
        method.fold(step, device, answered(SPARSE, device.report.samples, values=values))
    method.finish(number)


@pytest.fixture
def two(make_device: Callable[..., Device]) -> list[Device]:
    return [make_device("a", samples=10), make_device("b", partition=1, samples=30)]


def test_guidance_is_the_plain_mean_of_what_explorers_report_from_one_base(
    make_flip: Callable[..., AutoFLIPServer], two: list[Device]
) -> None:
    """The published mean is over references to one object, so that the last explorer alone decides."""
    first, second = np.random.default_rng(0).random((2, 17))
    method = make_flip()
    (step,) = method.steps(1)
    assert np.array_equal(step.arrays["weights"], BASE)
    explored(method, two, first, second)
    mean = ((first.astype(np.float32) + second.astype(np.float64)) / 2).astype(np.float32)  # not weighted by images
    scaled = guidance.normalised(SMALL, mean, "min-max")
    kept = guidance.parameters_kept(SMALL, scaled, BASE, int(0.3 * 17))
    assert kept.sum() == 12
    # training begins from the base, not from what explorers made of it
    assert np.array_equal(method.cohorts[0].weights, np.where(kept, BASE, 0))
    alone = make_flip()
    explored(alone, two, second, second)
    assert not np.array_equal(method.snapshot().arrays["mask"], alone.snapshot().arrays["mask"])


def test_the_servers_momentum_by_hand(make_flip: Callable[..., AutoFLIPServer], two: list[Device]) -> None:
    """v <- 0.9 v + 0.1 (theta - mean), theta <- theta - v; the mean is weighted by 10 and 30 images."""
    method = make_flip()
    explored(method, two, *np.random.default_rng(0).random((2, 17)))
    theta, v = method.cohorts[0].weights.astype(np.float64), np.zeros(17)
    kept = theta != 0
    generator = np.random.default_rng(1)
    for number in (2, 3, 4):
        first, second = generator.normal(size=(2, 17))
        trained(method, two, number, first, second)
        mean = np.where(kept, (10 * first + 30 * second) / 40, 0)
        v = 0.9 * v + 0.1 * (theta - mean)
        theta = theta - v
        np.testing.assert_allclose(method.cohorts[0].weights, theta, rtol=1e-5, atol=1e-6)
        assert not method.cohorts[0].weights[~kept].any()


def test_without_momentum_the_mean_is_the_model(make_flip: Callable[..., AutoFLIPServer], two: list[Device]) -> None:
    method = make_flip(autoflip_server_momentum=0.0)
    explored(method, two, *np.random.default_rng(0).random((2, 17)))
    kept = method.cohorts[0].weights != 0
    first, second = np.random.default_rng(1).normal(size=(2, 17)).astype(np.float32)
    trained(method, two, 2, first, second)
    mean = (10 * first.astype(np.float64) + 30 * second.astype(np.float64)) / 40
    assert np.array_equal(method.cohorts[0].weights, np.where(kept, mean, 0).astype(np.float32))


def test_the_published_mask_is_lost_ours_is_in_every_rounds_message(
    make_flip: Callable[..., AutoFLIPServer], two: list[Device]
) -> None:
    method = make_flip()
    explored(method, two, *np.random.default_rng(0).random((2, 17)))
    mask = method.snapshot().arrays["mask"]
    kept = unpacked(mask, 17)
    assert kept.sum() == 12
    for number in range(2, 6):
        trained(method, two, number, *np.random.default_rng(number).normal(size=(2, 17)))
        (step,) = method.steps(number + 1)
        assert np.array_equal(step.arrays["mask"], mask)
        # what travels: 12 float32 and 17 bits there, 12 float32 back
        assert sum(one.nbytes for one in step.arrays.values()) == 12 * 4 + 3
        assert step.largest_reply(30) == 12 * 4
        assert np.array_equal(method.cohorts[0].weights != 0, kept)


def test_an_exploration_is_charged_for_the_epochs_it_took(
    make_flip: Callable[..., AutoFLIPServer], two: list[Device]
) -> None:
    method = make_flip(autoflip_exploration_epochs=7, autoflip_patience=2, autoflip_explorers=0.5, fraction=0.25)
    (step,) = method.steps(1)
    order = step.order(two[1])
    assert (order.settings.to_mapping()["epochs"], order.settings.to_mapping()["patience"]) == (7, 2)
    assert step.share == 0.5  # not the share that trains in a round
    result = answered(EXPLORE, 30, displacement=np.zeros(17, np.float32), epochs=np.array([4], np.int32))
    macs = 2 * 3 + 3 * 2
    assert step.work is not None
    assert step.work(order, result) == 3 * macs * 4 * 30
    assert order.macs_per_sample == 3 * macs * 7
    explored(method, two, *np.random.default_rng(0).random((2, 17)), epochs=(4, 7))
    notes = method.notes(method.cohorts[0])
    assert notes == {"kept_share": 12 / 17, "exploration_epochs": 5.5}
    (training,) = method.steps(2)
    assert training.share is None
    assert method.notes(method.cohorts[0]) == {"kept_share": 12 / 17}


def test_who_hears_of_no_explorer_explores_again(make_flip: Callable[..., AutoFLIPServer], two: list[Device]) -> None:
    method = make_flip()
    method.steps(1)
    method.finish(1)
    assert np.array_equal(method.cohorts[0].weights, BASE)
    explored(method, two, *np.random.default_rng(0).random((2, 17)))
    assert (method.cohorts[0].weights == 0).sum() == 5


def test_a_hostile_explorer_is_outvoted_by_the_median(
    make_flip: Callable[..., AutoFLIPServer], two: list[Device], make_device: Callable[..., Device]
) -> None:
    three = [*two, make_device("c", partition=2)]
    honest = np.random.default_rng(0).random(17)
    masks = []
    for third in (honest, 1e5 * honest[::-1]):
        method = make_flip(robust_aggregation="median")
        explored(method, three, honest, honest, third, epochs=(2, 2, 2))
        masks.append(method.snapshot().arrays["mask"].tolist())
    assert masks[0] == masks[1]


GOOD = {"displacement": np.full(17, 0.01, np.float32), "epochs": np.array([2], np.int32)}
KEPT = np.arange(17) % 3 != 0


def spoilt(kind: str, values: Any, at: int) -> Any:
    """An array that no device of ours sends."""
    values = values.copy()
    at %= values.size
    if kind == "negative":
        values[at] = -1
    elif kind == "NaN":
        values = values.astype(np.float32)
        values[at] = np.nan
    elif kind == "far beyond":
        values[at] = 1e9
    elif kind == "short":
        values = values[:-1]
    elif kind == "long":
        values = np.append(values, values[:1])
    elif kind == "deep":
        values = values[:, None]
    elif kind == "wide":
        values = values.astype(np.float64)
    return values


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["displacement", "epochs"]),
    kind=st.sampled_from(["negative", "NaN", "far beyond", "short", "long", "deep", "wide", "missing", "more"]),
    at=st.integers(0, 16),
)
def test_no_hostile_exploration_is_admitted(
    name: str, kind: str, at: int, make_flip: Callable[..., AutoFLIPServer]
) -> None:
    (step,) = make_flip().steps(1)
    assert Result.decode(answered(EXPLORE, **GOOD).encode(), step.reply, 10).arrays["epochs"].tolist() == [2]
    arrays = dict(GOOD)
    if kind == "missing":
        del arrays[name]
    elif kind == "more":
        arrays["mask"] = np.zeros(1, np.float32)
    else:
        arrays[name] = spoilt(kind, arrays[name], at)
    try:
        content = answered(EXPLORE, **arrays).encode()
    except ValueError:  # a type that cannot travel
        return
    with pytest.raises(MessageError):
        Result.decode(content, step.reply, 10)


@settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["NaN", "far beyond", "short", "long", "deep", "dense", "another name"]),
    at=st.integers(0, 16),
)
def test_no_hostile_sparse_weights_are_admitted(kind: str, at: int, make_flip: Callable[..., AutoFLIPServer]) -> None:
    method = make_flip()
    method.restore(method.cohorts, Snapshot(arrays={"mask": packed(KEPT)}))
    (step,) = method.steps(2)
    good = BASE[KEPT]
    assert np.array_equal(Result.decode(answered(SPARSE, values=good).encode(), step.reply, 10).arrays["values"], good)
    arrays = {"values": BASE} if kind == "dense" else {"values": spoilt(kind, good, at)}
    if kind == "another name":
        arrays = {"weights": good}
    with pytest.raises(MessageError):
        Result.decode(answered(SPARSE, **arrays).encode(), step.reply, 10)


def test_variances_stay_positive_under_momentum(make_flip: Callable[..., AutoFLIPServer], two: list[Device]) -> None:
    """v may lead beyond any mean; statistics of batch norms are plain means."""
    network = Architecture.full(BaseNetwork("resnet8", (3, 8, 8), 2, width=0.125))
    weights = network.layout.flatten(network.build(0).state_dict())
    method = make_flip()
    method.restore([Cohort("cohort-0", network, weights, 0.1, ["a", "b"])], Snapshot())
    explored(method, two, *np.random.default_rng(0).random((2, len(weights))))
    variance = np.repeat(
        [name.endswith("running_var") for name in network.layout.names],
        [int(np.prod(shape)) for shape in network.layout.shapes],
    )
    for number, value in ((2, 0.001), (3, 0.001), (4, 0.5)):
        (step,) = method.steps(number)
        kept = unpacked(step.arrays["mask"], len(weights))
        assert kept[variance].all()
        sent = np.where(variance, np.float32(value), method.cohorts[0].weights)[kept]
        for device in two:
            method.fold(step, device, answered(SPARSE, 10, values=sent))
        method.finish(number)
        np.testing.assert_allclose(method.cohorts[0].weights[variance], value, rtol=1e-6)


def test_the_only_round_cannot_be_the_exploration(small_config: Callable[..., Config]) -> None:
    base = BaseNetwork("mlp", (1, 8, 8), 10)
    with pytest.raises(ConfigurationError, match="first round of autoflip explores"):
        AutoFLIPServer.check(small_config(method="autoflip", rounds=1), base, {})
    AutoFLIPServer.check(small_config(method="autoflip", rounds=1, autoflip_guidance="random"), base, {})


def facts(summary: dict[str, Any]) -> tuple[int, int]:
    (cohort,) = summary["cohorts"]
    return cohort["macs"], cohort["params"]


@pytest.fixture
def flip_config(small_config: Callable[..., Config]) -> Callable[..., Config]:
    return lambda **changes: small_config(**{**QUICK, "max_params": "", **changes})


def test_structured_removal_makes_tensors_smaller_and_costs_and_traffic_fall(
    run_federation: Callable[..., dict[str, Any]], flip_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Of 200 hidden units 70 % of the parameters are left: 15,010 -> at most 10,507, in all modes the same share."""
    found = {}
    for mode in ("unstructured", "structured", "hybrid"):
        summary = run_federation(flip_config(autoflip_mode=mode), tmp_path / mode)
        weights = RunFolder(tmp_path / mode).load_model("cohort-0")
        zeros = sum(int((tensor == 0).sum()) for tensor in weights.values())
        left = sum(tensor.numel() for tensor in weights.values()) - zeros
        found[mode] = (*facts(summary), left, summary["traffic"])
    assert found["unstructured"][:2] == (14_800, 15_010)
    assert found["structured"][0] == 74 * 139
    assert found["structured"][1] == 75 * 139 + 10
    assert 14_800 > found["hybrid"][0] > found["structured"][0]
    for mode in found:
        assert abs(found[mode][2] - 0.7 * 15_010) < 80, mode  # a unit has 75 parameters
        traffic = found[mode][3]
        assert traffic["explore"]["answers"] == 3
    # 10,507 float32 and one bit for each of 15,010, over two rounds and three devices
    sparse = found["unstructured"][3]["train-sparse"]
    assert 0 < sparse["bytes_down"] - 6 * (10_507 * 4 + 1877) < 6 * 2000
    assert 0 < sparse["bytes_up"] - 6 * 10_507 * 4 < 6 * 1000
    assert found["structured"][3]["train"]["bytes_up"] < found["unstructured"][3]["explore"]["bytes_up"] * 2 * 0.71
    per_sample = 3 * 74 * 139
    assert found["structured"][3]["train"]["device_macs"] % per_sample == 0


def test_chance_explores_nothing_and_removes_as_much(
    run_federation: Callable[..., dict[str, Any]], flip_config: Callable[..., Config], tmp_path: Path
) -> None:
    default = {"autoflip_exploration_epochs": 20}  # another number would have no effect, and is refused
    summary = run_federation(flip_config(autoflip_guidance="random", rounds=1, **default), tmp_path / "run")
    assert list(summary["traffic"]) == ["evaluate", "train-sparse"]
    weights = RunFolder(tmp_path / "run").load_model("cohort-0")
    assert sum(int((tensor == 0).sum()) for tensor in weights.values()) == int(0.3 * 15_010)


@pytest.mark.parametrize("batch_norm", ["frozen", "recalibrate"])
@pytest.mark.parametrize("mode", ["unstructured", "structured"])
def test_what_chance_leaves_is_scored_and_trained_with_statistics_of_its_own(
    mode: str,
    batch_norm: str,
    make_run: Callable[..., Run],
    flip_config: Callable[..., Config],
    make_device: Callable[..., Device],
) -> None:
    changes: dict[str, Any] = {"model": "resnet8", "width": 0.5, "pretraining_epochs": 0, "batch_norm": batch_norm}
    method = AutoFLIPServer(make_run(flip_config(autoflip_guidance="random", autoflip_mode=mode, **changes)))
    method.prepare([make_device()])
    (cohort,) = method.cohorts
    begun = cohort.weights
    recalibrate_cohorts([cohort], method.run)
    assert np.array_equal(begun, cohort.weights)


@pytest.mark.parametrize("mode", ["unstructured", "hybrid"])
def test_a_run_that_is_killed_in_any_stage_ends_with_the_same_weights(
    mode: str, run_federation: Callable[..., dict[str, Any]], flip_config: Callable[..., Config], tmp_path: Path
) -> None:
    """Killed while devices explore, and in each of the rounds after."""
    config = flip_config(autoflip_mode=mode)
    run_federation(config, tmp_path / "whole")
    whole = models(tmp_path / "whole")
    stages = set()
    for instant in (6, 12, 16):
        path = tmp_path / f"cut-{instant}"
        with pytest.raises(KeyboardInterrupt):
            run_federation(config, path, Crash(instant))
        stages.add(max((event["round"] for event in RunFolder(path).events("round")), default=0))
        run_federation(config, path, resume=True)
        assert models(path) == whole, instant
    assert {0, 1, 2} <= stages


class Killed(Silent):
    """Progress that ends the process, so to speak, once the network is cut and its file is written."""

    def __init__(self, architecture: Path) -> None:
        self._path = architecture
        self.before = b""

    def advance(self, stage: str, units: int, message: str) -> None:
        if self._path.exists():
            self.before = self._path.read_bytes()

    def note(self, message: str) -> None:
        if message.startswith("autoflip keeps"):
            raise KeyboardInterrupt


@pytest.mark.parametrize("torn", [False, True], ids=["after both files", "between weights and description"])
def test_a_run_that_is_killed_as_it_cuts_its_network_cuts_it_again_and_says_so_once(
    torn: bool, run_federation: Callable[..., dict[str, Any]], flip_config: Callable[..., Config], tmp_path: Path
) -> None:
    config, path = flip_config(autoflip_mode="structured", rounds=2), tmp_path / "cut"
    run_federation(config, tmp_path / "whole")
    architecture = RunFolder(path).architecture_path("cohort-0")
    killed = Killed(architecture)
    with pytest.raises(KeyboardInterrupt):
        run_federation(config, path, killed)
    assert architecture.read_bytes() != killed.before
    if torn:
        architecture.write_bytes(killed.before)
    run_federation(config, path, resume=True)
    assert models(path) == models(tmp_path / "whole")
    found = load_member(architecture)
    assert found.architecture.costs.params == 75 * 139 + 10
    recorded = [(event["round"], event["params"]) for event in RunFolder(path).events("architecture")]
    assert recorded == [(0, 15_010), (1, 75 * 139 + 10)]


def test_devices_that_cannot_hold_the_network_are_named_and_not_served(
    run_federation: Callable[..., dict[str, Any]], flip_config: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "fleet.toml").write_text(TWO_BUDGETS.replace('"12k"', '"20k"'))
    config = flip_config(fleet=str(tmp_path / "fleet.toml"), fedavg_model="drop-weak")
    summary = run_federation(config, tmp_path / "run")
    assert summary["cohorts"][0]["devices"] == 1
    refused = [one for one in RunFolder(tmp_path / "run").events("device") if one["status"] == "rejected"]
    assert [one["device"] for one in refused] == ["small-00", "small-01"]
    assert all("cannot hold mlp, which needs 14,800 MACs" in one["reason"] for one in refused)
