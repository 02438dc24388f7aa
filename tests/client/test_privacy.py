"""Local differential privacy: off by default, and when on really applied; which of Flower's other tools fit."""

import math
from dataclasses import replace
from typing import Any

import flwr.clientapp.mod
import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.app import app
from common.architecture import Architecture
from common.arrays import ArraySpec
from common.config import Config
from common.layout import Layout
from common.messages import Result, Task
from common.methods.fedgkt import TransferOrder
from common.methods.fednas import ALPHAS, LARGEST_ALPHA, SEARCH, CellOrder, FedNAS
from common.methods.training import TRAIN, TrainingOrder, weights_spec
from common.models.darts import Design
from common.models.description import BaseNetwork
from common.progress import Silent
from server.federation import federate
from server.run_folder import RunFolder
from simulation.grid import InlineGrid

ARCHITECTURE = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 10))
WEIGHTS = ARCHITECTURE.layout.flatten(ARCHITECTURE.build(0).state_dict())
ORDER = TrainingOrder(batch_size=16, learning_rate=0.1).to_mapping()
TASK = Task("dac", TRAIN, 1, ARCHITECTURE, ORDER, {"weights": WEIGHTS})
NORM = 0.05
SIGMA = 2 * NORM * math.sqrt(2 * math.log(1.25 / 1e-5)) / 1.0


@pytest.fixture(autouse=True)
def task_identity() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def ask(
    client: ClientApp = app, content: RecordDict | None = None, node: dict[str, Any] | None = None, **settings: Any
) -> Message:
    changes = {name.replace("_", "-"): value for name, value in settings.items()}
    run_config = Config.from_mapping({"devices": 2, "accelerator": "cpu", **changes}).to_mapping()
    context = Context(1, 5, {"partition-id": 0, **(node or {})}, RecordDict(), run_config)
    return client(Message(content or TASK.encode(), 5, "train"), context)


def weights_of(reply: Message, layout: Layout) -> np.ndarray:
    return Result.decode(reply.content, {"weights": ArraySpec("<f4", (layout.size,))}, 0).arrays["weights"]


def update(reply: Message) -> np.ndarray:
    return weights_of(reply, ARCHITECTURE.layout).astype(np.float64) - WEIGHTS


@pytest.fixture
def silent_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's noise is left out, so that what it is added to can be seen."""
    monkeypatch.setattr("flwr.clientapp.mod.localdp_mod.add_gaussian_noise_inplace", lambda arrays, deviation: None)


def test_it_is_off_by_default_and_training_is_what_it_was() -> None:
    assert update(ask()).tobytes() == update(ask()).tobytes()
    assert np.linalg.norm(update(ask())) > NORM


def test_the_update_is_clipped_to_the_norm_in_its_own_direction(silent_noise: None) -> None:
    plain, clipped = update(ask()), update(ask(local_dp_clipping_norm=NORM))
    assert np.linalg.norm(clipped) == pytest.approx(NORM, rel=1e-4)
    np.testing.assert_allclose(clipped, plain * NORM / np.linalg.norm(plain), atol=1e-6)


def test_noise_of_the_gaussian_mechanism_is_added() -> None:
    noised = update(ask(local_dp_clipping_norm=NORM))
    assert noised.size > 10_000
    # the deviation of so many draws is that of the noise within 5 %; the clipped update adds next to nothing
    assert np.std(noised) == pytest.approx(SIGMA, rel=0.05)
    assert np.std(update(ask(local_dp_clipping_norm=NORM, local_dp_epsilon=0.5))) == pytest.approx(2 * SIGMA, rel=0.05)


def test_a_larger_delta_needs_less_noise() -> None:
    """The deviation grows with sqrt(ln(1.25 / delta)): to 1e-5 from 1e-3 by a factor of 1.283."""
    noised = update(ask(local_dp_clipping_norm=NORM, local_dp_delta=1e-3))
    assert np.std(noised) == pytest.approx(SIGMA / 1.283, rel=0.05)


def test_the_noise_does_not_follow_from_the_seed() -> None:
    np.random.seed(0)
    first = update(ask(local_dp_clipping_norm=NORM))
    np.random.seed(0)
    assert not np.allclose(first, update(ask(local_dp_clipping_norm=NORM)), atol=SIGMA / 10)


def test_noise_leaves_no_negative_variance() -> None:
    architecture = Architecture.with_kept(BaseNetwork("mobilenet_v2", (1, 8, 8), 10, width=0.25), {})
    layout = architecture.layout
    weights = layout.flatten(architecture.build(0).state_dict())
    task = replace(TASK, network=architecture, arrays={"weights": weights})
    reply = ask(content=task.encode(), local_dp_clipping_norm=1.0)
    state = layout.unflatten(weights_of(reply, layout))
    variances = torch.cat([tensor for name, tensor in state.items() if name.endswith("running_var")])
    assert (variances >= 0).all()
    assert (variances == 0).any()  # which the noise had made negative


def test_noise_leaves_architecture_parameters_that_the_server_admits() -> None:
    """A softmax is saturated at 20, and the server refuses more."""
    supernet = Architecture.full(BaseNetwork(Design(1, 3).name, (1, 8, 8), 10))
    layout = supernet.layout
    sent = layout.flatten(supernet.build(0).state_dict())
    task = Task("fednas", SEARCH, 1, supernet, CellOrder(batch_size=64).to_mapping(), {"weights": sent})
    reply = ask(content=task.encode(), method="fednas", train_images=300, local_dp_clipping_norm=1.0)
    admitted = {"weights": weights_spec(layout, sent, limits=FedNAS.weight_limits)}
    alphas = layout.unflatten(Result.decode(reply.content, admitted, 0).arrays["weights"])[ALPHAS]
    assert (alphas.abs() == LARGEST_ALPHA).any()  # which the noise had moved further


def test_the_owner_of_a_device_decides(silent_noise: None) -> None:
    clipped = update(ask(node={"local-dp-clipping-norm": NORM}))
    assert np.linalg.norm(clipped) == pytest.approx(NORM, rel=1e-4)
    stricter = update(ask(node={"local-dp-clipping-norm": NORM / 2}, local_dp_clipping_norm=NORM))
    assert np.linalg.norm(stricter) == pytest.approx(NORM / 2, rel=1e-4)


def test_an_impossible_setting_trains_nothing() -> None:
    reply = ask(node={"local-dp-clipping-norm": NORM, "local-dp-epsilon": 50})
    assert "local-dp-epsilon must be at most 1" in reply.error.reason


def test_every_cohort_can_use_it(tmp_path: Any) -> None:
    settings = {"model": "cnn", "devices": 2, "rounds": 2, "fleet": "phone", "max-params": "40k", "accelerator": "cpu"}
    quick = {"warmup-epochs": 1, "epochs-per-step": 0, "fine-tune-epochs": 0, "local-dp-clipping-norm": 0.001}
    config = Config.from_mapping({**settings, **quick})
    grid = InlineGrid(app, [{"partition-id": n} for n in range(2)], config.to_mapping(), Run.create_empty(1))
    with RunFolder.create(tmp_path / "run") as folder:
        federate(grid, config, folder, Silent(), False)
        assert {event["status"] for event in folder.events("device")} == {"trained"}


def test_the_server_admits_the_noise_that_its_run_asks_for(tmp_path: Any) -> None:
    """At epsilon 0.05 the weights are more than a thousand times what was sent, the limit without noise."""
    settings = {"method": "fedavg", "model": "mlp", "devices": 2, "rounds": 1, "fleet": "phone", "accelerator": "cpu"}
    noise = {"local-dp-clipping-norm": 1.0, "local-dp-epsilon": 0.05, "device-evaluation": False}
    config = Config.from_mapping({**settings, **noise})
    grid = InlineGrid(app, [{"partition-id": n} for n in range(2)], config.to_mapping(), Run.create_empty(1))
    with RunFolder.create(tmp_path / "run") as folder:
        federate(grid, config, folder, Silent(), False)
        assert {event["status"] for event in folder.events("device")} == {"trained"}


def test_a_task_of_another_method_trains_nothing_with_it_either() -> None:
    reply = ask(content=replace(TASK, method="fedavg").encode(), local_dp_clipping_norm=NORM)
    assert reply.error.reason == "the run is of method dac, the message of 'fedavg'"


def test_an_owner_who_wants_it_is_told_that_a_method_which_sends_more_than_weights_has_none() -> None:
    network = Architecture.full(BaseNetwork("resnet8_bottleneck", (1, 8, 8), 10))
    sent = network.layout.flatten(network.build(0).state_dict())
    task = Task("fedgkt", "extract", 1, network, TransferOrder().to_mapping(), {"weights": sent})
    reply = ask(content=task.encode(), method="fedgkt", node={"local-dp-clipping-norm": NORM})
    assert "local differential privacy needs a method whose devices send weights and no more" in reply.error.reason


def test_flowers_clipping_mod_accepts_our_messages() -> None:
    clipping = ClientApp(mods=[fixedclipping_mod])

    @clipping.train()
    def train(message: Message, context: Context) -> Message:
        return app(message, context)

    content = TASK.encode()
    content.config_records["task"]["clipping_norm"] = NORM
    assert np.linalg.norm(update(ask(clipping, content))) == pytest.approx(NORM, rel=1e-4)


def test_flower_has_no_secure_aggregation_for_messages_of_this_kind() -> None:
    assert [name for name in dir(flwr.clientapp.mod) if "secagg" in name.lower()] == []
