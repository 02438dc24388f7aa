"""FedProx's device half: the gradient of a proximal term, which grows with the distance from what was sent."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from client.data import DeviceData
from client.methods import fedavg
from client.methods.fedprox import STEPS
from client.steps import run_step
from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import ConfigurationError
from common.layout import State
from common.learning import Feed
from common.messages import Result, Task
from common.methods.fedprox import ProximalOrder
from common.methods.training import TRAIN, TrainingOrder
from common.models.description import BaseNetwork
from common.seeds import derive_seed, torch_generator

CPU = torch.device("cpu")
PLAIN = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none")
ARCHITECTURE = Architecture.with_kept(BaseNetwork("mlp", (1, 2, 2), 3), {"hidden": range(5)})
LAYOUT = ARCHITECTURE.layout
WEIGHTS = LAYOUT.flatten(ARCHITECTURE.build(0).state_dict())
RATE = 0.5
ORDER = TrainingOrder(epochs=2, batch_size=6, learning_rate=RATE)
NAMES = (TRAIN, 1, "device-00")


def images(count: int = 6) -> Images:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 1, 2, 2), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3)


def proximal(mu: float, order: TrainingOrder = ORDER, architecture: Architecture = ARCHITECTURE) -> Task:
    weights = architecture.layout.flatten(architecture.build(0).state_dict())
    own = {**order.to_mapping(), "proximal-coefficient": mu}
    return Task("fedprox", TRAIN, 1, architecture, own, {"weights": weights})


def run(task: Task, data: Images | None = None, steps: Any = STEPS) -> Result:
    return run_step(steps, task, DeviceData(data or images(), None, PLAIN), "device-00", CPU)


def plain(task: Task, data: Images | None = None) -> Result:
    """What a device of FedAvg makes of the same."""
    order = {key: value for key, value in task.order.items() if key != "proximal-coefficient"}
    return run(replace(task, order=order), data, fedavg.STEPS)


def gradient(state: State, pixels: torch.Tensor, labels: torch.Tensor, kept: torch.Tensor) -> State:
    """Of the mean cross-entropy of a perceptron, by the chain rule on paper.

    `kept` (B, hidden) are dropout's factors, 0 or 2.
    """
    x = pixels.flatten(1)
    before = (x @ state["hidden.weight"].T + state["hidden.bias"]) * kept
    hidden = before.clamp(min=0)
    logits = hidden @ state["classifier.weight"].T + state["classifier.bias"]
    d_logits = (logits.softmax(1) - F.one_hot(labels, 3)) / len(labels)
    d_hidden = (d_logits @ state["classifier.weight"]) * (before > 0) * kept
    return {
        "hidden.weight": d_hidden.T @ x,
        "hidden.bias": d_hidden.sum(0),
        "classifier.weight": d_logits.T @ hidden,
        "classifier.bias": d_logits.sum(0),
    }


def by_hand(mu: float, epochs: int) -> list[State]:
    """What was sent and what each step makes of it: w <- w - rate (gradient + mu (w - sent)), with a step an epoch."""
    order = torch_generator(0, *NAMES)
    feed = Feed(images(), PLAIN, 6)
    sent = LAYOUT.unflatten(WEIGHTS)
    states = [sent]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(0, *NAMES, "dropout"))
        for _ in range(epochs):
            [batch] = feed.training(order, CPU)
            kept = F.dropout(torch.ones(6, 5), 0.5)
            now = states[-1]
            slope = gradient(now, batch.images, batch.labels, kept)
            states.append({name: now[name] - RATE * (slope[name] + mu * (now[name] - sent[name])) for name in now})
    return states


def test_the_first_step_is_plain_and_the_second_is_drawn_back_to_what_was_sent() -> None:
    """The term's gradient is mu (w - sent): nothing at first, then mu times what the first step moved."""
    mu = 0.8
    sent, first, second = by_hand(mu, epochs=2)
    state = LAYOUT.unflatten(run(proximal(mu, replace(ORDER, epochs=1))).arrays["weights"])
    for name, value in first.items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-6)
    state = LAYOUT.unflatten(run(proximal(mu)).arrays["weights"])
    assert set(state) == set(second)
    free = LAYOUT.unflatten(plain(proximal(mu)).arrays["weights"])
    for name, value in second.items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-6)
        # with the same first step, all that differs is the pull of the term
        torch.testing.assert_close(
            free[name] - state[name], RATE * mu * (first[name] - sent[name]), rtol=1e-3, atol=1e-6
        )
        assert bool((first[name] != sent[name]).any())


@pytest.mark.parametrize("model", ["mlp", "cnn", "mobilenet_v2"])
@pytest.mark.parametrize(
    "order",
    [
        replace(ORDER, learning_rate=0.05),
        replace(ORDER, batch_size=4, learning_rate=0.05, momentum=0.9, weight_decay=0.1),
        replace(ORDER, batch_size=4, learning_rate=0.05, max_gradient_norm=0.5, masked_loss="exclude"),
    ],
)
def test_without_the_term_it_is_plain_training_to_the_bit(model: str, order: TrainingOrder) -> None:
    architecture = Architecture.full(BaseNetwork(model, (1, 8, 8), 4, width=0.25))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (9, 1, 8, 8), generator=generator, dtype=torch.uint8)
    data = Images(pixels, torch.arange(9) % 3)
    task = proximal(0.0, order, architecture)
    without, free = run(task, data), plain(task, data)
    assert without.arrays["weights"].tobytes() == free.arrays["weights"].tobytes()
    assert without.loss == free.loss


def test_the_larger_the_coefficient_the_nearer_the_weights_stay() -> None:
    order = replace(ORDER, epochs=20, learning_rate=0.1)
    distances = [
        float(np.linalg.norm(run(proximal(mu, order)).arrays["weights"] - WEIGHTS)) for mu in (0.0, 0.1, 1.0, 5.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 2 * distances[-1] > 0


def test_the_loss_that_is_reported_is_that_of_the_images_alone() -> None:
    """The second epoch begins at the same weights whatever the coefficient, so its images cost the same."""
    free, held = plain(proximal(0.0)), run(proximal(100.0))
    assert held.loss == pytest.approx(free.loss, rel=1e-6)


def test_the_distance_is_from_what_this_task_sent_and_from_no_earlier_one() -> None:
    first = run(proximal(0.8)).arrays["weights"]
    moved = replace(proximal(0.8), arrays={"weights": WEIGHTS + np.float32(0.5)})
    other = run(moved).arrays["weights"]
    assert run(proximal(0.8)).arrays["weights"].tobytes() == first.tobytes()
    assert run(moved).arrays["weights"].tobytes() == other.tobytes()
    assert moved.weights.tobytes() == (WEIGHTS + np.float32(0.5)).tobytes()


def test_statistics_of_batch_norms_are_not_held_back() -> None:
    """The term is on what is trained; a batch norm's running mean follows its batches as in plain training."""
    architecture = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 3, width=0.25))
    generator = torch.Generator().manual_seed(0)
    data = Images(torch.randint(256, (6, 1, 8, 8), generator=generator, dtype=torch.uint8), torch.arange(6) % 3)
    task = proximal(10.0, replace(ORDER, epochs=1, learning_rate=0.01), architecture)
    held, free = (architecture.layout.unflatten(one.arrays["weights"]) for one in (run(task, data), plain(task, data)))
    running = [name for name in held if "running" in name]
    assert running
    assert all(torch.equal(held[name], free[name]) for name in running)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-0.1, "^proximal-coefficient must be at least 0, not -0.1$"),
        (float("nan"), "^proximal-coefficient must be a finite number, not nan$"),
        (float("inf"), "^proximal-coefficient must be a finite number, not inf$"),
        ("much", "^proximal-coefficient must be a number, not 'much'$"),
    ],
)
def test_a_coefficient_that_cannot_be_is_refused(value: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        run(proximal(value))


def test_a_device_of_fedavg_does_not_take_the_order() -> None:
    assert ProximalOrder.from_mapping(proximal(0.5).order).proximal_coefficient == 0.5
    with pytest.raises(ConfigurationError, match="unknown setting 'proximal-coefficient'"):
        run(proximal(0.5), steps=fedavg.STEPS)
