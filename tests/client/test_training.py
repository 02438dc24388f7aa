"""Local training and evaluation: plain SGD, decided by the task and the device's name alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from client.evaluation import evaluate_task
from client.training import train_task
from common.architecture import Architecture
from common.data.augment import Preprocessor
from common.data.images import Images
from common.errors import FederationError, MessageError
from common.layout import load_weights
from common.messages import Task, TrainResult
from common.models.description import BaseNetwork

CPU = torch.device("cpu")
PLAIN = Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "none")
ARCHITECTURE = Architecture.full(BaseNetwork("cnn", (1, 8, 8), 3))
LAYOUT = ARCHITECTURE.layout
TASK = Task(1, ARCHITECTURE, LAYOUT.flatten(ARCHITECTURE.build(0).state_dict()), batch_size=4, learning_rate=0.1)


def images(count: int, shape: tuple[int, int, int] = (1, 8, 8), classes: int = 3) -> Images:
    generator = torch.Generator().manual_seed(count)
    return Images(
        torch.randint(256, (count, *shape), generator=generator, dtype=torch.uint8),
        torch.randint(classes, (count,), generator=generator),
    )


def train(task: Task = TASK, name: str = "device-00", count: int = 10) -> TrainResult:
    return train_task(task, images(count), Preprocessor(torch.tensor([0.5]), torch.tensor([0.25]), "crop"), name, CPU)


def test_one_batch_is_one_step_of_gradient_descent() -> None:
    data = images(6)
    result = train_task(replace(TASK, batch_size=6), data, PLAIN, "device-00", CPU)
    module = ARCHITECTURE.build(0)
    module.train()
    loss = F.cross_entropy(module(PLAIN.eval_batch(data.images)), data.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    expected = {name: p.detach() - 0.1 * p.grad for name, p in module.named_parameters() if p.grad is not None}
    state = LAYOUT.unflatten(result.weights)
    assert set(expected) == set(state)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-6)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert (result.samples, result.round, result.layout_hash) == (6, 1, LAYOUT.hash)
    assert result.peak_rss_bytes > 2**20


def test_the_same_task_gives_the_same_bits_whatever_was_trained_between() -> None:
    first = train().weights
    train(replace(TASK, round=9), name="another", count=7)
    torch.rand(3)
    assert train().weights.tobytes() == first.tobytes()


def test_seed_round_and_name_each_give_other_randomness() -> None:
    results = [train(), train(replace(TASK, seed=1)), train(replace(TASK, round=2)), train(name="device-01")]
    assert len({result.weights.tobytes() for result in results}) == 4


@pytest.mark.parametrize(
    "change", [{"epochs": 2}, {"batch_size": 3}, {"learning_rate": 0.05}, {"momentum": 0.9}, {"weight_decay": 0.1}]
)
def test_the_task_decides_how_a_device_trains(change: dict[str, Any]) -> None:
    assert train(replace(TASK, **change)).weights.tobytes() != train().weights.tobytes()


def test_dropout_is_seeded_and_the_process_keeps_its_own_randomness() -> None:
    architecture = Architecture.full(BaseNetwork("mlp", (1, 8, 8), 3))
    weights = architecture.layout.flatten(architecture.build(0).state_dict())
    task = Task(1, architecture, weights, batch_size=4)
    before = torch.get_rng_state()
    first, second = (train_task(task, images(10), PLAIN, "device-00", CPU).weights for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_norm_statistics_travel_with_the_weights() -> None:
    architecture = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 3, width=0.25))
    layout = architecture.layout
    task = Task(1, architecture, layout.flatten(architecture.build(0).state_dict()), batch_size=5)
    trained = layout.unflatten(train_task(task, images(11), PLAIN, "device-00", CPU).weights)
    means = [name for name in trained if name.endswith("running_mean")]
    assert means
    assert all(bool(trained[name].any()) for name in means)


@pytest.mark.parametrize(("epochs", "batch_size"), [(0, 4), (-1, 4), (1, 0), (1, -2)])
def test_an_impossible_task_is_refused(epochs: int, batch_size: int) -> None:
    with pytest.raises(MessageError, match="cannot train"):
        train(replace(TASK, epochs=epochs, batch_size=batch_size))


def test_images_that_the_model_does_not_take_are_named() -> None:
    with pytest.raises(MessageError, match=r"\(1, 8, 8\), this device has \(3, 8, 8\)"):
        train_task(TASK, images(4, (3, 8, 8)), PLAIN, "device-00", CPU)
    data = images(4)
    with pytest.raises(MessageError, match="3 classes, this device has label 9"):
        train_task(TASK, Images(data.images, data.labels * 0 + 9), PLAIN, "device-00", CPU)


def test_a_deadline_ends_training_with_a_clear_reason() -> None:
    with pytest.raises(FederationError, match=r"did not finish 100000 epochs within 0.2 s"):
        train(replace(TASK, epochs=100_000, deadline_seconds=0.2))
    assert train().samples == 10  # and the next task is not disturbed


def test_training_that_diverges_is_an_error_not_a_model() -> None:
    with pytest.raises(FederationError, match="diverged in epoch"):
        train(replace(TASK, learning_rate=1e30, epochs=5))


def test_evaluation_scores_the_model_that_was_sent() -> None:
    data = images(9)
    result = evaluate_task(TASK, data, PLAIN, CPU)
    module = ARCHITECTURE.build(1).eval()
    load_weights(module, LAYOUT.unflatten(TASK.weights))
    with torch.no_grad():
        logits = module(PLAIN.eval_batch(data.images))
    assert result.accuracy == pytest.approx(float((logits.argmax(1) == data.labels).double().mean()))
    assert result.loss == pytest.approx(float(F.cross_entropy(logits, data.labels)), rel=1e-5)
    assert (result.samples, result.round) == (9, 1)


def test_evaluation_without_held_out_images_is_refused() -> None:
    with pytest.raises(MessageError, match="holds no images out"):
        evaluate_task(TASK, None, PLAIN, CPU)


def test_frozen_batch_norms_come_back_with_the_statistics_they_were_sent_with() -> None:
    architecture = Architecture.full(BaseNetwork("mobilenet_v2", (1, 8, 8), 3, width=0.25))
    layout = architecture.layout
    sent = layout.unflatten(layout.flatten(architecture.build(0).state_dict()))
    task = Task(1, architecture, layout.flatten(sent), batch_size=5, learning_rate=0.01)

    def moved(frozen: bool) -> set[str]:
        state = layout.unflatten(train(replace(task, frozen_norms=frozen)).weights)
        return {name for name in state if "running" in name and not torch.equal(state[name], sent[name])}

    assert moved(frozen=True) == set()
    assert len(moved(frozen=False)) > 50


def test_a_long_gradient_is_scaled_down_and_a_short_one_is_left_alone() -> None:
    """One step of plain SGD moves the weights by the learning rate times the gradient."""
    data = images(6)
    task = replace(TASK, batch_size=6, momentum=0.0)

    def step(limit: float) -> torch.Tensor:
        weights = train_task(replace(task, max_gradient_norm=limit), data, PLAIN, "device-00", CPU).weights
        return torch.from_numpy(weights - TASK.weights)

    free = step(0.0)
    norm = float(free.norm()) / 0.1
    assert float(step(0.5 * norm).norm()) == pytest.approx(0.05 * norm, rel=1e-3)
    torch.testing.assert_close(step(0.5 * norm), 0.5 * free, rtol=1e-3, atol=1e-6)
    assert torch.equal(step(2 * norm), free)
